"""Sparsity of the gradients by kind of layer at the last checkpoint: mean over the weights, dL/dW."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftlab.plots import _gradients
from graftlab.plots._models import GradientLine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS_FROM = "gradients"
TITLE = "Gradients by kind of layer: sparsity"


def data(rows: Sequence[GradientLine]) -> _gradients.ByKind:
    """Return the figure by model and kind of layer."""
    return _gradients.by_kind(rows, "sparsity")


def draw(found: _gradients.ByKind) -> "Figure":
    """Return bars, a colour a model."""
    return _gradients.bars(found)
