"""Run files: YAML read with the place of every key, laid over their bases, and built into sections."""

from graftlab.config.reading import read_yaml
from graftlab.config.section import Paths, Section, expand

__all__ = ["Paths", "Section", "expand", "read_yaml"]
