"""graftlab trains, compares and explains parameter-efficient adapters on frozen models."""

__version__ = "0.1.0"
