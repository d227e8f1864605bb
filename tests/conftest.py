"""What holds for all tests."""

import resource

# Some tests hold hundreds of connections; the usual soft limit of 1,024 descriptors is for other programs.
_, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _most))
