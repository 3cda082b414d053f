"""What parts hand to each other: records, the loop's moments, and what each kind of part provides."""

from graftlab.contracts.analysis import (
    About,
    Analysis,
    Asked,
    Change,
    Differentiable,
    Merged,
    Quantity,
    Subject,
    Texts,
)
from graftlab.contracts.hook import AddsLosses, Hook, MicroBatch, Training, adding
from graftlab.contracts.method import LayerChoice, Method, Served
from graftlab.contracts.note import NOTED, Note, read_notes, written
from graftlab.contracts.parts import (
    BackboneKind,
    HookKind,
    LayerScore,
    Metric,
    TaskKind,
    TaskPart,
)
from graftlab.contracts.plot import Compared, Plot, Searched, Selected
from graftlab.contracts.promises import Excused, Promises
from graftlab.contracts.records import (
    OF_TASK,
    OF_VECTORS,
    USUAL_METRICS,
    Attached,
    Backbone,
    Batch,
    Controls,
    Data,
    Mixture,
    Prediction,
    Problem,
    Row,
    Score,
    Setting,
    Task,
    Writer,
    as_mixture,
    as_writer,
    inputs_of,
    parts_of,
)

__all__ = [
    "NOTED", "OF_TASK", "OF_VECTORS", "USUAL_METRICS", "About", "AddsLosses", "Analysis", "Asked", "Attached",
    "Backbone", "BackboneKind", "Batch", "Change", "Compared", "Controls", "Data", "Differentiable",
    "Excused", "Hook", "HookKind", "LayerChoice", "LayerScore", "Merged", "Method", "Metric", "MicroBatch",
    "Mixture", "Note", "Plot", "Prediction", "Problem", "Promises", "Quantity", "Row", "Score",
    "Searched", "Selected", "Served", "Setting", "Subject", "Task", "TaskKind", "TaskPart", "Texts",
    "Training", "Writer", "adding", "as_mixture", "as_writer", "inputs_of", "parts_of", "read_notes",
    "written",
]  # fmt: skip
