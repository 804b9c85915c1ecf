"""The version, which `--version` says, and pyproject.toml and the hub's user agent take from here."""

__version__ = "0.1.0"
