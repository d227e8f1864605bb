"""The version of the whole distribution: the build, the client and the daemon read it here."""

__version__ = "0.1.0"
