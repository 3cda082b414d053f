"""What was written of a vector, embedded again: cosines and ranks against numpy on a small model."""

from typing import Any

import numpy as np
import pytest

from graftlab.encoders import embedder
from graftlab.errors import ConfigError, ModelError
from graftlab.metrics import _written_vectors, median_rank, reciprocal_rank, semantic_consistency
from graftlab.testing import examples

pytest.importorskip("sentence_transformers")

TEXTS = ["ships sail", "kings reign", "kettles boil", "rivers run on and on", "lawyers write"]
WRITTEN = ["ships sail", "kettles boil", "", "rivers run on", "lawyers wrote it"]
PLAIN = _written_vectors.Config()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> embedder.Embedder:
    folder = examples.text_model(tmp_path_factory.mktemp("embedder"), "encoder")
    return embedder.load(embedder.Request(folder, pooling="mean", max_seq_length=16))


def rows(model: embedder.Embedder, written: Any = WRITTEN, **inputs: Any) -> list[dict[str, Any]]:
    vectors = 3 * model.encode(TEXTS, 8)  # their length says nothing
    made_with = model.origin.as_json()
    return [
        {
            "index": place,
            "label": text,
            "prediction": said,
            "inputs": {"vector": vector, "made_with": made_with, **inputs},
        }
        for place, (text, said, vector) in enumerate(zip(TEXTS, written, vectors, strict=True))
    ]


def cosines(model: embedder.Embedder) -> np.ndarray:
    """Of each written text with each vector."""
    own, said = (model.encode(texts, 1).astype(np.float64) for texts in (TEXTS, WRITTEN))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    said /= np.linalg.norm(said, axis=1, keepdims=True)
    found: np.ndarray = said @ own.T
    found[WRITTEN.index("")] = 0
    return found


def test_consistency_is_the_cosine_with_the_own_vector(model: embedder.Embedder) -> None:
    found = semantic_consistency.each(rows(model), PLAIN)
    assert found == pytest.approx(np.diag(cosines(model)).tolist(), abs=1e-5)
    assert found[0] == pytest.approx(1)


def test_ranks_count_the_vectors_that_are_nearer(model: embedder.Embedder) -> None:
    near = cosines(model)
    expected = [1 + int((row > row[place]).sum()) for place, row in enumerate(near)]
    expected[WRITTEN.index("")] = len(TEXTS)
    assert median_rank.each(rows(model), PLAIN) == expected
    assert reciprocal_rank.each(rows(model), PLAIN) == pytest.approx([1 / r for r in expected])
    assert median_rank.score(rows(model), PLAIN).value == np.median(expected)


def test_a_text_that_several_rows_are_about_is_one_vector(model: embedder.Embedder) -> None:
    """Twice the rows, the same ranks."""
    once, twice = rows(model), [*rows(model), *rows(model)]
    assert median_rank.each(twice, PLAIN)[: len(once)] == median_rank.each(once, PLAIN)


def test_samples_of_an_example_count_by_their_mean(model: embedder.Embedder) -> None:
    both = rows(model, [[text, ""] for text in TEXTS])
    assert semantic_consistency.each(both, PLAIN) == pytest.approx([0.5] * len(TEXTS))


def test_vectors_that_do_not_say_what_they_were_made_with_are_refused(
    model: embedder.Embedder,
) -> None:
    with pytest.raises(ConfigError):
        semantic_consistency.score(rows(model, made_with=None), PLAIN)
    without = [{**row, "inputs": {"text": "a"}} for row in rows(model)]
    with pytest.raises(ConfigError):
        reciprocal_rank.score(without, PLAIN)


def test_another_model_than_the_one_that_made_the_vectors_is_refused(
    model: embedder.Embedder,
) -> None:
    others = dict.fromkeys(model.origin.sha256, "0" * 64)
    changed = rows(model, made_with={**model.origin.as_json(), "sha256": others})
    with pytest.raises(ModelError):
        semantic_consistency.score(changed, PLAIN)
