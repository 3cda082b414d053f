"""How sharp the loss is where training has come to: the largest eigenvalue of its Hessian.

Over the parameters that were trained (LoRA's are its factors; a new head is among them), by power iteration
on products with the Hessian (Pearlmutter 1994); H itself is never made. Gradient descent diverges above a
learning rate of 2 over it (Cohen et al. 2021, arXiv 2103.00065); Adam has a scale of its own.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.contracts import Asked, Differentiable, Subject
from graftlab.seeds import mix

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Shapes: P numbers of all trained parameters.

FILE = "sharpness/sharpness_results"
SHOWN = (
    *(
        "model",
        "checkpoint",
        "rank",
        "largest_eigenvalue",
        "null_largest_eigenvalue",
        "loss",
        "note",
    ),
)
MOST = 100
"""Products with the Hessian for one end of its spectrum."""
CLOSE = 0.01
"""|H v - value v| / |value| at which it ends: a symmetric matrix has an eigenvalue that near."""

Product = Callable[["Tensor"], "Tensor"]


class Row(NamedTuple):
    """A model at one checkpoint."""

    model: str
    checkpoint: int | None
    type: str | None
    rank: int | None
    task_type: str | None
    largest_eigenvalue: float | None
    """Of the Hessian of the mean loss on `sample`, over the trained parameters."""
    null_largest_eigenvalue: float | None
    """Curvature in a random direction: on average the mean of all eigenvalues."""
    residual: float | None
    """|H v - value v| / |value|: how far the vector that was found is from an eigenvector."""
    products: int | None
    """With the Hessian that it took."""
    parameters: int | None
    """Numbers that were trained."""
    loss: float | None
    """Mean loss on `sample`."""
    sample: str | None
    """What the loss is of."""
    note: str | None
    """Why numbers are missing, or the eigenvalue is not exact, if so."""


class Found(NamedTuple):
    """The eigenvalue that an iteration has come to."""

    value: float
    residual: float
    products: int
    first: float
    """The quotient of the vector that it began with."""


def rows(subjects: Sequence[Subject], asked: Asked) -> Iterator[Row]:
    """Yield a line for each model at each checkpoint."""
    for subject in asked.each(subjects):
        if not subject.names():
            continue
        given = subject.differentiable(asked.examples)
        yield _row(subject, given, asked)


def _row(subject: Subject, given: Differentiable | str, asked: Asked) -> Row:
    empty = (None, None, None, None, None, None)
    if isinstance(given, str):
        return Row(*subject.about, *empty, None, given)
    try:
        loss, size, found = sharpness(given, mix(asked.seed, "sharpness"))
    except (RuntimeError, NotImplementedError) as error:  # an operation without a second derivative
        return Row(*subject.about, *empty, given.sample, f"no Hessian: {error}"[:200])
    if not math.isfinite(found.value):
        return Row(*subject.about, *empty, given.sample, "not finite")
    null = found.first if asked.null else None
    far = found.residual > CLOSE
    note = f"not converged after {found.products} products" if far else None
    return Row(
        *subject.about, found.value, null, found.residual, found.products, size, loss, given.sample,
        note,
    )  # fmt: skip


def sharpness(given: Differentiable, seed: int) -> tuple[float, int, Found]:
    """Return the loss, how many numbers train, and the largest eigenvalue of its Hessian."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    weights = [p for p in given.model.parameters() if p.requires_grad]
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():  # the others have no second derivative
        loss = given.loss()
        slopes = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        slope_P = torch.cat([slope.reshape(-1) for slope in slopes])

        def product(v_P: "Tensor") -> "Tensor":
            if not slope_P.requires_grad:  # linear in all of them
                return torch.zeros_like(v_P)
            parts = torch.autograd.grad(
                slope_P, weights, v_P, retain_graph=True, materialize_grads=True
            )
            return torch.cat([part.reshape(-1) for part in parts])

        draws = torch.Generator().manual_seed(seed)
        start_P = torch.randn(len(slope_P), generator=draws).to(slope_P)
        return float(loss.detach()), len(slope_P), largest(product, start_P)


def largest(product: Product, start_P: "torch.Tensor") -> Found:
    """Return the largest eigenvalue of a symmetric matrix, given by its product with a vector.

    Power iteration finds the one of largest size. Where that is negative, the matrix without it, shifted by
    it, has the largest at the other end.
    """
    found = _power(product, start_P, 0.0)
    if not found.value < 0:
        return found
    upper = _power(product, start_P, found.value)
    return Found(upper.value, upper.residual, found.products + upper.products, found.first)


def _power(product: Product, start_P: "torch.Tensor", shift: float) -> Found:
    """Iterate H - shift from a vector until it is an eigenvector of H, or for `MOST` products."""
    v_P = start_P / start_P.norm()
    first = value = residual = math.nan
    for count in range(1, MOST + 1):
        turned_P = product(v_P)
        value = float(v_P @ turned_P)
        first = value if count == 1 else first
        size = float((turned_P - value * v_P).norm())
        residual = size / abs(value) if value else (math.inf if size else 0.0)
        if residual <= CLOSE or not math.isfinite(value):
            return Found(value, residual, count, first)
        moved_P = turned_P - shift * v_P
        v_P = moved_P / moved_P.norm()
    return Found(value, residual, MOST, first)
