"""edge-server: a self-hosted edge compute platform.  Only the version lives here."""

__version__ = "0.1.0"
