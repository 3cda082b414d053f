"""What parts hand to each other: records, the loop's moments, and what each kind of part provides."""

from graftlab.contracts.hook import Hook, Training
from graftlab.contracts.note import Note, read_notes, written
from graftlab.contracts.plot import Compared, Plot, Selected
from graftlab.contracts.records import (
    OF_TASK,
    Attached,
    Backbone,
    Batch,
    Data,
    Mixture,
    Problem,
    Row,
    Setting,
    Task,
    Writer,
    parts_of,
)

__all__ = [
    "OF_TASK",
    "Attached",
    "Backbone",
    "Batch",
    "Compared",
    "Data",
    "Hook",
    "Mixture",
    "Note",
    "Plot",
    "Problem",
    "Row",
    "Selected",
    "Setting",
    "Task",
    "Training",
    "Writer",
    "parts_of",
    "read_notes",
    "written",
]
