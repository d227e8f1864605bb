"""How long the client waits before it does something again, in seconds."""

PATIENCE_MIN_S = 1.0
"""With no answer for so long, a new connection is made and everything unanswered is sent again."""
PATIENCE_MAX_S = 16.0
"""It doubles from one silence to the next up to this: a slow answer must get through in the end."""
BACKOFF_MIN_S = 0.010
BACKOFF_MAX_S = 1.0
"""The bounds of the wait after an error that asks to try again; it doubles from one to the next."""
