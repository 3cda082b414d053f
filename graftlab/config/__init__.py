"""Run files: YAML read with the place of every key, laid over bases, and built into sections."""

from graftlab.config.document import Document, given, lay_over, merge, placed, read, recipes
from graftlab.config.dump import dump, inline
from graftlab.config.parser import Parsed, read_yaml
from graftlab.config.problems import Problems, closest
from graftlab.config.section import Conflict, ModelName, Paths, Section, expand
from graftlab.config.validation import build

__all__ = [
    "Conflict", "Document", "ModelName", "Parsed", "Paths", "Problems", "Section",
    "build", "closest", "dump", "expand", "given", "inline", "lay_over", "merge", "placed",
    "read", "read_yaml", "recipes",
]  # fmt: skip
