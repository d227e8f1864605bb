"""Bounds of the protocol that are no settings, and what was added to its first version."""

READ_ALL_RECORDS_MAX = 10_000
CURSORS_LISTED_MAX = 100
CURSORS_SHOWN_MAX = 100  # in stats and metrics, those furthest back
AT_LEAST_SECONDS = 60  # for which a read without `timeoutMs` waits for its `atLeast`
DELETIONS_DEFAULT = 100
DELETIONS_MAX = 1000

FEATURES = (
    "getEvent",
    "eventFilters",
    "omit",
    "summaries",
    "atomic",
    "deletion",
    "recordFilters",
    "expect",
    "positionAt",
    "cursors",
    "asOf",
    "atLeast",
    "search",
    "recordOmit",
)
"""Names in the answer to `hello`; wire.md, section 4.5, says what each stands for."""
