"""The losses along the change, at W0 + scale * change: of the task, and of general text.

The scales go beyond what was trained. Beside them stands the same with a random change of each weight's rank
and size. What training has brought but is in no weight from before, such as a new head, stays as it is.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.analyses import matrix
from graftlab.contracts import About, Asked, Merged, Subject
from graftlab.seeds import mix
from graftlab.spectra.null import random_change

if TYPE_CHECKING:
    from torch import Tensor, nn

    from graftlab.contracts.arrays import Floats

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
FILE = "path/path_results"
NO_TEXTS = "it writes no texts: it has no loss of them"

Moves = Callable[[str], "Floats"]
"""Returns (O, I) what a weight is moved by."""
Losses = tuple[float | None, float | None]
"""Of the task and of general text."""


class Row(NamedTuple):
    """A model at one place of its path."""

    model: str
    checkpoint: int | None
    type: str | None
    rank: int | None
    task_type: str | None
    scale: float | None
    """Of the change: 0 is the model before training, 1 what it has come to."""
    task_loss: float | None
    """Mean loss on `sample`."""
    null_task_loss: float | None
    """The same along a random change of the same rank and size in each weight."""
    text_loss: float | None
    """Mean loss of a token (nats) in `texts`; empty of a model that writes none."""
    null_text_loss: float | None
    """The same along a random change of the same rank and size in each weight."""
    sample: str | None
    """What the task's loss is of."""
    texts: str | None
    """What the loss of general text is of."""
    note: str | None
    """Why numbers are missing, if they are."""


def rows(subjects: Sequence[Subject], asked: Asked) -> Iterator[Row]:
    """Yield a line for each place of each model's path, at its last checkpoint."""
    last = {subject.about.model: subject for subject in subjects if subject.names()}
    for subject in asked.each(list(last.values())):
        merged = subject.merged(asked.examples)
        found = merged if isinstance(merged, str) else _places(subject, merged.model)
        if isinstance(found, str) or isinstance(merged, str):
            yield _row(subject.about, None, (None, None), (None, None), (None, None, str(found)))
        else:
            yield from _of(subject, merged, found, asked)


def _of(
    subject: Subject, merged: Merged, places: "Mapping[str, Tensor]", asked: Asked
) -> Iterator[Row]:
    def change(name: str) -> "Floats":
        left, right = subject.change(name)[1:3]
        return matrix(left) if right is None else matrix(left) @ matrix(right)

    def drawn(name: str) -> "Floats":
        whole, right = change(name), subject.change(name).right
        draws = np.random.default_rng(mix(asked.seed, "path", name))
        rank = None if right is None else len(right)
        one, two = random_change(whole.shape, rank, float(np.linalg.norm(whole)), draws)
        return one if two is None else one @ two

    def losses(scale: float, moves: Moves) -> Losses:
        _put(subject, places, scale, moves)
        return _losses(merged, asked.texts.values)

    found = {scale: losses(scale, change) for scale in SCALES}
    nulls: dict[float, Losses] = dict.fromkeys(SCALES, (None, None))
    if asked.null:
        nulls = {s: losses(s, drawn) if s else found[s] for s in SCALES}
    for scale in SCALES:
        note = "not finite" if found[scale][0] is None else None
        told = note or (NO_TEXTS if merged.text_loss is None else None)
        texts = None if merged.text_loss is None else asked.texts.source
        yield _row(subject.about, scale, found[scale], nulls[scale], (merged.sample, texts, told))


def _row(
    about: About,
    scale: float | None,
    found: Losses,
    null: Losses,
    told: tuple[str | None, str | None, str | None],
) -> Row:
    return Row(*about, scale, found[0], null[0], found[1], null[1], *told)


def _places(subject: Subject, model: "nn.Module") -> "dict[str, Tensor] | str":
    """Return the model's parameter of each weight that there was before, or why one has none."""
    parameters = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    for name in subject.names():
        before = subject.base(name)
        if before is None:
            continue
        alike = [n for n in parameters if f".{n}".endswith(f".{name}")]
        alike = alike or [n for n in parameters if name.endswith(f".{n}")]
        if len(alike) != 1 or parameters[alike[0]].numel() != before.numel():
            return f"the merged model has no weight {name} of that shape"
        found[name] = parameters[alike[0]]
    return found or "no weight from before is at hand"


def _put(subject: Subject, places: "Mapping[str, Tensor]", scale: float, moves: Moves) -> None:
    """Set each weight to what it was before and `scale` times what it is moved by."""
    import torch

    for name, parameter in places.items():
        before = subject.base(name)
        assert before is not None, name
        moved = matrix(before) + scale * moves(name)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(moved).reshape(parameter.shape))


def _losses(merged: Merged, texts: Sequence[str]) -> Losses:
    import torch

    with torch.no_grad():
        task = float(merged.loss())
    text = math.nan if merged.text_loss is None else merged.text_loss(texts)
    return task if math.isfinite(task) else None, text if math.isfinite(text) else None
