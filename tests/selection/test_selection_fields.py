"""No field of `method.selection` is idle: changed, it shows in what is drawn, scored or chosen."""

import numpy as np
import pytest
from plugged_models import CLASSES, NUM_LAYERS, rows, write_model
from transformers import AutoTokenizer

from graftlab import registry
from graftlab.selection import Config, examples, hidden_states, survey
from graftlab.selection.choice import choose
from graftlab.selection.results import values
from graftlab.weights import layers

SMALL = {
    "samples": 30,
    "components": 6,
    "top_components": 2,
    "folds": 3,
    "resamples": 3,
    "depth_bias": 0.3,
    "normalise": "none",  # of so small a model no score tells the layers apart, and none would have a vote
}
CASES = {
    "samples": 33,
    "components": 4,
    "top_components": 1,
    "space": "raw",
    "pooling": "last",
    "max_length": 3,
    "dtype": "bfloat16",
    "weights": {"mdl": 1.0},
    "normalise": "rank",
    "rule": "latest",
    "depth_bias": 0.9,
    "depth_bias_form": "multiplicative",
    "folds": 4,
    "projection": "least_squares",
    "resamples": 2,
    "layers": (0, 2),
    "seed": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "llm")


def seen(folder, place, **settings):
    """Return all that a selection computes, but for files and figures."""
    config = Config(**{**SMALL, **settings})
    train = rows(60)
    labels = np.array([CLASSES.index(row["label"]) for row in train])
    drawn = examples.draw(labels, CLASSES, config)
    vectors = np.random.default_rng(0).normal(size=(60, 5)) + labels[:, None]
    texts = [train[i]["text"] for i in drawn]
    seen = examples.Examples(texts, [None] * len(texts), labels[drawn], CLASSES, vectors[drawn])
    checkpoint = layers.open(str(folder))
    request = survey.Request(
        checkpoint, None, seen, {}, lambda name: registry.find("scores", name),
        registry.names("scores"),
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = hidden_states.tokenize(texts, seen.pairs, tokenizer, config.max_length)
    stream = hidden_states.Stream(
        checkpoint, tokens, place, pooling=config.pooling, dtype=config.dtype
    )
    scoring = survey.Scoring(request, config)
    kept = survey.scored_layers(config, NUM_LAYERS)
    found = [
        scoring.row(c.number, c.after, scoring.plugged(c))
        for c in stream.run(kept[-1])
        if c.number in kept
    ]
    scores = {name: values(found, name) for name in registry.names("scores")}
    return repr((drawn.tolist(), found, choose(kept, scores, NUM_LAYERS, config)))


def test_every_field_has_a_case():
    assert set(CASES) == set(Config.model_fields)


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory):
    found, again = (seen(folder, tmp_path_factory.mktemp("plain")) for _ in range(2))
    assert found == again, "it differs without a change too"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_no_field_is_idle(folder, plain, tmp_path, name):
    assert seen(folder, tmp_path, **{name: CASES[name]}) != plain
