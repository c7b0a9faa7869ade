"""The one place of the version: pyproject.toml and the user agent read it here."""

__version__ = "0.1.0"
