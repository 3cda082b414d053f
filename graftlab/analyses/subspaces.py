"""How alike the directions are that two models, or one at two checkpoints, have changed: phi of changes.

phi is 1 where one space holds the other, and max(K, L) / D on average for random ones of K and L of D
dimensions: that null stands beside it (Hu et al. 2021, LoRA, section 7.2). Adapters of one rank that one seed
has drawn begin from the same right factor, which training hardly moves: what they read is then alike whatever
they have learned, and the null is what random left factors over both would have.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.analyses import matrix, module, number
from graftlab.contracts import Asked, Change, Subject
from graftlab.errors import ConfigError
from graftlab.seeds import mix
from graftlab.spectra import Delta, moved, null, subspace, threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FILE = "subspaces/subspaces_results"
APART = 5.0
"""Standard deviations of the cosine of two factors that were drawn apart: at more they began as one."""


class Row(NamedTuple):
    """One weight of a pair."""

    model: str
    checkpoint: int | None
    other: str
    """The model that it is compared with: another at its last checkpoint, or the same at its own last."""
    other_checkpoint: int | None
    layer: str
    """The weight's name."""
    number: int | None
    """The first number in its name: which layer."""
    module: str
    """The layer's own name, as in `q_proj`."""
    dimensions: int
    """How many of the first singular vectors of each change are compared, where it has as many."""
    left_similarity: float | None
    """phi of the left singular vectors: what the changes write."""
    null_left_similarity: float | None
    """What random spaces of as many dimensions would have on average."""
    right_similarity: float | None
    """phi of the right singular vectors: what the changes read."""
    null_right_similarity: float | None
    same_start: bool | None
    """Whether both right factors are alike entry by entry: they began as one. Empty without factors."""
    cosine: float | None
    """Of the two changes as vectors: 1 where they are the same up to their size."""
    note: str | None
    """Why numbers are missing, if they are."""


def rows(subjects: Sequence[Subject], asked: Asked) -> Iterator[Row]:
    """Yield a line for each weight that both of a pair have changed, and for 1, 2, 4, ... dimensions.

    Raises:
        ConfigError: two models did not begin from the same weight.
    """
    pairs, names = _pairs(subjects), {id(s): set(s.names()) for s in subjects}
    weights = list(dict.fromkeys(name for subject in subjects for name in subject.names()))
    for name in asked.each(weights):
        held: dict[int, Delta | None] = {}
        for one, other in pairs:
            if name in names[id(one)] and name in names[id(other)]:
                _check_bases(one, other, name)
                both = [_held(held, subject, name) for subject in (one, other)]
                deltas = [delta for delta in both if delta is not None]
                if len(deltas) == len(both):
                    with threads.fit_for(min(deltas[0].shape)):
                        lines = list(_lines(one, other, name, deltas, asked))
                    yield from lines


def _pairs(subjects: Sequence[Subject]) -> list[tuple[Subject, Subject]]:
    """Return each model's checkpoints beside its last one, then the last ones of all models."""
    models: dict[str, list[Subject]] = {}
    for subject in subjects:
        models.setdefault(subject.about.model, []).append(subject)
    within = [(state, states[-1]) for states in models.values() for state in states[:-1]]
    return [*within, *itertools.combinations((states[-1] for states in models.values()), 2)]


def _check_bases(one: Subject, other: Subject, name: str) -> None:
    if one.about.model == other.about.model:
        return
    first, second = one.base(name), other.base(name)
    if first is None or second is None:
        return
    if first.shape != second.shape or not bool(first.equal(second)):
        raise ConfigError(
            f"{one.about.model} and {other.about.model} began from other models: {name} was not the same "
            f"before training. Subspaces are compared between models with one base; analyse them apart."
        )


def _held(held: dict[int, Delta | None], subject: Subject, name: str) -> Delta | None:
    if id(subject) not in held:
        held[id(subject)] = _delta(subject.change(name))
    return held[id(subject)]


def _delta(change: Change) -> Delta | None:
    """Return a change; None of a weight that is new."""
    if change.new:
        return None
    return Delta(matrix(change.left), None if change.right is None else matrix(change.right))


def _lines(
    one: Subject, other: Subject, name: str, deltas: Sequence[Delta], asked: Asked
) -> Iterator[Row]:
    about = (
        one.about.model, one.about.checkpoint, other.about.model, other.about.checkpoint,
        name, number(name), module(name),
    )  # fmt: skip
    if not all(delta.finite for delta in deltas):
        yield Row(*about, 0, None, None, None, None, None, None, "not finite")
        return
    first, second = (delta.spectrum for delta in deltas)
    rights = [delta.right for delta in deltas if delta.right is not None]
    alike = None if len(rights) < len(deltas) else _began_as_one(*rights)
    of_read = _null
    if alike:
        draws = np.random.default_rng(mix(asked.seed, "subspaces", name))
        of_read = functools.partial(_of_one_start, rights, first.shape[0], draws)
    cosine = moved.cosine(*deltas)
    for count in _counts(min(asked.top, *first.shape)):
        pair = first.left(count), second.left(count)
        left = _similarity(*pair)
        right = _similarity(first.right(count), second.right(count))
        sizes = pair[0].shape[1], pair[1].shape[1]
        note = "no change" if 0 in sizes else None
        yield Row(
            *about, count, left, _null(sizes, first.shape[0]), right, of_read(sizes, first.shape[1]),
            alike, cosine, note,
        )  # fmt: skip


def _counts(most: int) -> list[int]:
    """Return 1, 2, 4, ... and the most."""
    return sorted({*(2**power for power in range(most.bit_length()) if 2**power <= most), most})


def _similarity(one: "Floats", other: "Floats") -> float | None:
    found = subspace.similarity(one, other)
    return None if np.isnan(found) else found


def _null(sizes: tuple[int, int], space: int) -> float | None:
    """Return E |A^T B|_F^2 / min(K, L) = max(K, L) / D for spaces drawn at random."""
    return max(sizes) / space if 0 not in sizes else None


def _began_as_one(one_RI: "Floats", other_RI: "Floats") -> bool:
    """Return whether two right factors are alike beyond chance: those that were drawn apart are not."""
    if one_RI.shape != other_RI.shape:
        return False
    size = float(np.linalg.norm(one_RI) * np.linalg.norm(other_RI))
    return bool(size) and abs(float((one_RI * other_RI).sum())) / size > APART / one_RI.size**0.5


def _of_one_start(
    rights: "Sequence[Floats]",
    rows: int,
    draws: np.random.Generator,
    sizes: tuple[int, int],
    _space: int,
) -> float | None:
    return null.phi_over((rights[0], rights[1]), rows, sizes, draws) if 0 not in sizes else None
