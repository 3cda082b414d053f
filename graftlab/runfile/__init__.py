"""A run file resolved: each section checked by the part that it names."""

from graftlab.runfile.parts import catalogue
from graftlab.runfile.records import Part, Root, RunFile
from graftlab.runfile.resolution import (
    SEARCH,
    began_with,
    of_run,
    resolve,
    resolve_task,
    several,
)
from graftlab.runfile.schema import schema

__all__ = [
    "SEARCH",
    "Part",
    "Root",
    "RunFile",
    "began_with",
    "catalogue",
    "of_run",
    "resolve",
    "resolve_task",
    "schema",
    "several",
]
