"""The model of a run file, built without its weights: how large it is, and what the method aims at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftlab import adapters
from graftlab.contracts import Note
from graftlab.runfile import RunFile
from graftlab.runs import material
from graftlab.weights import surgery


@dataclass(frozen=True)
class Outline:
    """A model without its weights."""

    architecture: str
    parameters: int
    targets: Sequence[str] | Mapping[str, int] | None
    """The layers that the method's `targets` are: names, or the rank of each; None where it has none."""
    note: Note | None = None
    """What `all-linear` leaves out."""

    def as_json(self) -> dict[str, object]:
        """Return the figures; the note is said with others."""
        known = {key: value for key, value in vars(self).items() if value is not None}
        return {key: value for key, value in known.items() if key != "note"}


def outline(file: RunFile) -> Outline:
    """Return what a run's model is, from the meta device.

    Raises:
        ConfigError: the method's targets are not in it.
        ModelError: its config cannot be read.
    """
    problem = file.task.module.problem(file.task.config)
    backbone = material.backbone(file, problem, meta=True)
    targets = getattr(file.method.config, "targets", None)
    rank = getattr(file.method.config, "rank", None)
    found: Sequence[str] | Mapping[str, int] | None = None
    if targets:
        found = (
            surgery.match_targets(backbone.model, targets, backbone.head)
            if rank is None
            else adapters.resolve(backbone, targets, rank)
        )
    size = sum(parameter.numel() for parameter in backbone.model.parameters())
    note = surgery.unreached(backbone.model, targets, backbone.head)
    return Outline(type(backbone.model).__name__, size, found, note)
