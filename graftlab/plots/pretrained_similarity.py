"""How alike singular vectors are to those before: boxes over the weights, dashes for a random change."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.plots import _models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats

DRAWS_FROM = "spectra"
TITLE = "Similarity to the pretrained weights"
PANELS = {
    "left_space_similarity": "left singular vectors: mean |cosine|",
    "right_space_similarity": "right singular vectors: mean |cosine|",
}


class Similarity(NamedTuple):
    """What is drawn: by panel, then by model."""

    panels: "dict[str, dict[str, Floats]]"
    nulls: "dict[str, dict[str, Floats]]"
    """The mean of the same for random changes; empty where none was drawn."""


def data(rows: Sequence[_models.Line]) -> Similarity:
    """Return both sides' similarities at each model's last checkpoint."""
    own = _models.last(rows)

    def of(name: str) -> "dict[str, Floats]":
        return {model: _models.column(r, name) for model, r in own.items()}

    nulls = {
        name: {m: v.mean(keepdims=True) for m, v in of(f"null_{name}").items() if len(v)}
        for name in PANELS
    }
    return Similarity({name: of(name) for name in PANELS}, nulls)


def draw(similarity: Similarity) -> "Figure":
    """Return a row of boxes for left and one for right vectors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    for axes, (name, found) in zip(figure.subplots(2, 1), similarity.panels.items(), strict=True):
        _models.boxes(axes, found)
        kept = [model for model, values in found.items() if len(values)]
        for place, model in enumerate(kept, start=1):
            for null in similarity.nulls[name].get(model, ()):
                axes.hlines(null, place - 0.35, place + 0.35, colors="black", linestyles="dashed")
        axes.set_title(PANELS[name], fontsize=10)
    return figure
