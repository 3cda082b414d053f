"""How alike the activations of two models are, block by block: linear CKA over the same texts.

    CKA = |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)    X, Y (N, D) centred: Kornblith et al. 2019, arXiv 1905.00414

With few texts and many features that is far above 0 for unrelated activations too. `debiased_cka` has the
unbiased estimate of HSIC in its three places (Nguyen et al. 2021, arXiv 2010.15327, eq. 3, after Song et al.
2012; Murphy et al. 2024, arXiv 2405.01012) and is 0 on average then.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graftlab.contracts import About, Asked, Subject
from graftlab.errors import ConfigError
from graftlab.seeds import mix

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats

# Shapes: N texts, D features.

BEFORE = "before training"
"""What a model is compared with as `other`: itself, without its training."""
DRAWS = 20
"""Permutations that the null is the mean of."""
FILE = "cka/cka_results"


class Row(NamedTuple):
    """One block of a pair."""

    model: str
    checkpoint: int | None
    other: str
    """The model that it is compared with: another at its last checkpoint, or itself `before training`."""
    other_checkpoint: int | None
    """Of the other model."""
    layer: str | None
    """`embeddings` for what goes into the first block, `block N` for what comes out of one."""
    number: int | None
    """Which block, from 0."""
    cka: float | None
    """Linear CKA: 1 where activations are the same up to rotation and size."""
    null_cka: float | None
    """The same with the texts of one of them permuted, the mean of 20 draws."""
    debiased_cka: float | None
    """The same by the unbiased estimate of HSIC: 0 on average where there is no relation, for any N and D."""
    null_debiased_cka: float | None
    """The same with the texts of one of them permuted."""
    sample: str | None
    """What the activations are of."""
    note: str | None
    """Why numbers are missing, if they are."""


Numbers = tuple[float | None, float | None, float | None, float | None]
NONE: Numbers = (None, None, None, None)


class Read(NamedTuple):
    """A model that has read the texts."""

    about: About
    found: "Sequence[Floats] | str"
    """(N, D) a block, or why there are none."""


def rows(subjects: Sequence[Subject], asked: Asked) -> Iterator[Row]:
    """Yield a line for each block of each checkpoint beside the model before, then of the last ones of two.

    Raises:
        ConfigError: there are no texts.
    """
    if not asked.texts.values:
        raise ConfigError("activations are compared over texts: `Asked(texts=...)` has none.")
    last: dict[str, Read] = {}
    start: dict[str, Read] = {}
    for subject in asked.each(subjects):
        if not subject.names():
            continue
        about, texts = subject.about, asked.texts.values
        if about.model not in start:
            before = subject.activations(texts, before=True)
            start[about.model] = Read(About(BEFORE), before)
        last[about.model] = Read(about, subject.activations(texts))
        yield from _pair(last[about.model], start[about.model], asked)
    for one, other in combinations(last.values(), 2):
        yield from _pair(one, other, asked)


def _pair(one: Read, other: Read, asked: Asked) -> Iterator[Row]:
    """Yield the lines of two models: of the blocks that both have."""
    about = one.about.model, one.about.checkpoint, other.about.model, other.about.checkpoint
    for read in (one, other):
        if isinstance(read.found, str):
            yield Row(*about, None, None, None, None, None, None, asked.texts.source, read.found)
            return
    assert not isinstance(one.found, str)
    assert not isinstance(other.found, str)
    for place, (x_ND, y_ND) in enumerate(zip(one.found, other.found, strict=False)):
        name = f"block {place - 1}" if place else "embeddings"
        finite = bool(np.isfinite(x_ND).all() and np.isfinite(y_ND).all())
        numbers = _numbers(gram(x_ND), gram(y_ND), asked) if finite else NONE
        note = None if finite else "not finite"
        number = place - 1 if place else None
        yield Row(*about, name, number, *numbers, asked.texts.source, note)


def _numbers(k_NN: "Floats", l_NN: "Floats", asked: Asked) -> Numbers:
    """Return both forms of CKA, each with its null."""
    found = [measure(k_NN, l_NN) for measure in (cka, debiased)]
    draws = np.random.default_rng(mix(asked.seed, "cka"))
    orders = [draws.permutation(len(l_NN)) for _ in range(DRAWS if asked.null else 0)]
    nulls = [_mean([measure(k_NN, l_NN[o][:, o]) for o in orders]) for measure in (cka, debiased)]
    return found[0], nulls[0], found[1], nulls[1]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def gram(x_ND: "Floats") -> "Floats":
    """Return (N, N) X X^T of the centred activations."""
    centred_ND = x_ND - x_ND.mean(axis=0)
    return centred_ND @ centred_ND.T


def cka(k_NN: "Floats", l_NN: "Floats") -> float | None:
    """Return <K, L> / (|K| |L|) of two centred Gram matrices, which is linear CKA; None of activations that
    are the same for all texts."""
    sizes = float(np.linalg.norm(k_NN) * np.linalg.norm(l_NN))
    return float((k_NN * l_NN).sum()) / sizes if sizes else None


def debiased(k_NN: "Floats", l_NN: "Floats") -> float | None:
    """Return HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)); None where N < 4 or either is not above 0."""
    if len(k_NN) < 4:
        return None
    own = hsic(k_NN, k_NN), hsic(l_NN, l_NN)
    return hsic(k_NN, l_NN) / math.sqrt(own[0] * own[1]) if min(own) > 0 else None


def hsic(k_NN: "Floats", l_NN: "Floats") -> float:
    """Return the unbiased estimate HSIC_1 of Song et al. 2012, eq. 5, of two Gram matrices."""
    n = len(k_NN)
    k_NN, l_NN = (m_NN - np.diag(np.diag(m_NN)) for m_NN in (k_NN, l_NN))
    sums = k_NN.sum() * l_NN.sum() / ((n - 1) * (n - 2))
    shared = 2 / (n - 2) * (k_NN.sum(axis=0) @ l_NN.sum(axis=0))
    return float(((k_NN * l_NN).sum() + sums - shared) / (n * (n - 3)))
