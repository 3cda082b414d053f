"""What was written, embedded again by the model that made the vectors: cosines with all of them."""

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.config import Section
from graftlab.contracts import Prediction
from graftlab.data.vectors.origin import Origin
from graftlab.encoders import embedder
from graftlab.errors import ConfigError
from graftlab.metrics import Predictions
from graftlab.metrics._texts import written

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shapes: N distinct vectors, D numbers each, K texts.

BATCH = 32
MOST_KEPT = 100_000  # texts whose vectors are kept: several metrics ask for the same


class Config(Section):
    """How texts become vectors again."""

    embedder: str = ""
    """Where the embedding model is now, if not where it was when the vectors were made: a folder, an alias
    or a hub id. It has to be the same one, by its hashes."""


class Cosines(NamedTuple):
    """What was written for an example, beside all vectors of the examples."""

    own: "NDArray[np.float64]"  # (K,)
    """Cosine of each text with the example's own vector; 0 of a text without a word."""
    ranks: "NDArray[np.float64]"  # (K,)
    """Place of the own vector among all, the nearest first, from 1; the last of a text without a word.
    Vectors as near as the own share their places' mean."""


class Embedder:
    """The model of some vectors, with what it has made so far."""

    def __init__(self, origin: str, model: str | None) -> None:
        self._model = embedder.reopen(Origin.from_json(json.loads(origin)), model)
        self._known: dict[str, NDArray[np.float64]] = {}

    def units(self, texts: list[str]) -> "list[NDArray[np.float64]]":
        """Return a vector of length 1 (D,) for each text."""
        if len(self._known) > MOST_KEPT:
            self._known = {}
        new = sorted({*texts} - self._known.keys(), key=lambda text: (-len(text), text))
        if new:
            self._known |= zip(new, _units(self._model.encode(new, BATCH)), strict=True)
        return [self._known[text] for text in texts]


@functools.lru_cache(maxsize=2)
def opened(origin: str, model: str | None) -> Embedder:
    """Return the model that vectors were made with. `Raises:` ConfigError, ModelError, Refused."""
    return Embedder(origin, model)


def cosines(predictions: Predictions, config: Config) -> list[Cosines]:
    """Return of each example how near what was written is to the vectors.

    Raises:
        ConfigError: examples stand for no vectors, or these do not say what they were made with.
        ModelError: the model is not there, or is another.
    """
    import numpy as np

    if not predictions:
        return []
    asked = [(row["inputs"], written(row)) for row in predictions]
    model = opened(_origin(asked[0][0]), config.embedder or None)
    vectors_ND, places = np.unique(
        _units(np.stack([inputs["vector"] for inputs, _ in asked])), axis=0, return_inverse=True
    )
    places = places.reshape(-1)
    found = []
    for (_, texts), place in zip(asked, places, strict=True):
        own, ranks = np.zeros(len(texts)), np.full(len(texts), float(len(vectors_ND)))
        said = [number for number, text in enumerate(texts) if text.strip()]
        for number, unit_D in zip(said, model.units([texts[k] for k in said]), strict=True):
            near_N = vectors_ND @ unit_D
            own[number] = near_N[place]
            nearer, equal = (near_N > near_N[place]).sum(), (near_N == near_N[place]).sum()
            ranks[number] = nearer + (equal + 1) / 2
        found.append(Cosines(own, ranks))
    return found


def _units(vectors_ND: "NDArray[np.floating[Any]]") -> "NDArray[np.float64]":
    import numpy as np

    wide_ND = np.asarray(vectors_ND, np.float64)
    lengths_N = np.linalg.norm(wide_ND, axis=1, keepdims=True)
    return np.divide(wide_ND, lengths_N, out=np.zeros_like(wide_ND), where=lengths_N > 0)


def _origin(inputs: Mapping[str, object]) -> str:
    """Return what an example's vector was made with, as text. `Raises:` ConfigError."""
    if "vector" not in inputs:
        said = "this metric is for rows that stand for vectors (task kind elm)."
        raise ConfigError(said, kind="conflict")
    made_with = inputs.get("made_with")
    if made_with is None:
        raise ConfigError(
            "the vectors do not say what they were made with, so that a text cannot be embedded alike. Make "
            "them with `graftlab embed`, or leave this metric out.",
            kind="missing",
        )
    return json.dumps(made_with, sort_keys=True, ensure_ascii=False)


@functools.cache
def _example() -> tuple[list[str], "NDArray[np.float32]", dict[str, object]]:
    made = embedder.load(embedder.Request("minilm"))
    texts = [f"A story of {number} {what}." for number in range(10) for what in SUBJECTS]
    return texts, made.encode(texts, BATCH), made.origin.as_json()


SUBJECTS = ("ships", "kings", "kettles", "rivers", "lawyers")


def example() -> list[Prediction]:
    """Return texts of which every seventh was written of another vector, for the contract tests.

    Raises:
        ModelError: MiniLM is not there.
    """
    texts, vectors_ND, made_with = _example()
    return [
        {
            "index": place,
            "label": text,
            "prediction": texts[(place + 11) % len(texts)] if place % 7 == 0 else text,
            "inputs": {"vector": vector_D, "made_with": made_with},
        }
        for place, (text, vector_D) in enumerate(zip(texts, vectors_ND, strict=True))
    ]
