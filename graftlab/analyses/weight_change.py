"""How far each adapted weight was moved, and in how many directions: norms and stable rank of its change.

The singular values of a change B A of low rank are those of the small matrix R_B R_A^T of its factors' QR
decompositions, exactly: no matrix of the weight's own size is made. All is computed in float64.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts import Change, Subject

if TYPE_CHECKING:
    from torch import Tensor

# Shapes: O and I rows and columns of a weight, R rank, K singular values.

NOT_FINITE = "not finite"


class Row(NamedTuple):
    """What one weight has come to."""

    weight: str
    """The weight's name."""
    layer: int | None
    """The first number in its name."""
    module: str
    """The layer's own name, as in `query`."""
    rows: int
    """Of the weight as it lies in the model."""
    columns: int
    """Of the same; 1 of a bias."""
    rank: int | None
    """Columns of the factors that make up the change; None where it is dense."""
    frobenius: float | None
    """Frobenius norm of the change: the root of the sum of its squares."""
    relative: float | None
    """That norm over the weight's own before; None where that is not at hand."""
    spectral: float | None
    """Largest singular value of the change."""
    stable_rank: float | None
    """Squared Frobenius over squared spectral norm: how many directions share the change; None where there is
    no change."""
    note: str | None
    """Why numbers are missing, if they are."""


def rows(subject: Subject) -> Iterator[Row]:
    """Yield one line for each weight that was adapted, in the model's order."""
    for change in subject.changes():
        yield _row(change, subject.base(change.name))


def _row(change: Change, base: "Tensor | None") -> Row:
    import torch

    name, left, right = change
    factors = [tensor for tensor in (left, right) if tensor is not None]
    place = re.search(r"\.(\d+)\.", name)
    shape = (len(left), 1 if left.dim() == 1 else factors[-1].shape[1])
    about = (
        name, int(place[1]) if place else None, name.split(".")[-2] if "." in name else name,
        *shape, None if right is None else int(left.shape[1]),
    )  # fmt: skip
    if not all(bool(torch.isfinite(tensor).all()) for tensor in factors):
        return Row(*about, None, None, None, None, NOT_FINITE)
    values_K = singular_values(left, right)
    frobenius, spectral = float(values_K.norm()), float(values_K.max())
    size = 0.0 if base is None else float(base.double().norm())
    return Row(
        *about,
        frobenius,
        frobenius / size if size else None,
        spectral,
        (frobenius / spectral) ** 2 if spectral else None,
        None,
    )


def singular_values(left: "Tensor", right: "Tensor | None") -> "Tensor":
    """Return (K,) the singular values of left (O, R) @ right (R, I), or of `left` (O, I) or (O,) alone."""
    import torch

    if right is None:
        return torch.linalg.svdvals(left.double().reshape(len(left), -1))
    upper_KR = torch.linalg.qr(left.double(), mode="r").R
    upper_LR = torch.linalg.qr(right.double().T, mode="r").R
    return torch.linalg.svdvals(upper_KR @ upper_LR.T)
