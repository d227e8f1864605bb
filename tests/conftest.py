"""What holds for all tests."""

import resource
import signal

from hypothesis import settings

# A machine that is busy with something else makes no test wrong: none is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Some tests hold hundreds of connections; the usual soft limit of 1,024 descriptors is for other programs.
_, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _most))

# What a script starts in the background ignores Ctrl-C, and so would the programs that are tried.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
