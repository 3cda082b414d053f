"""The promises of every metric, over all registered names."""

import math
import random
from typing import Any

import pytest

from graftlab import registry

every = pytest.mark.parametrize("name", registry.names("metrics"))


def _predictions(seed: int, share_right: float) -> list[dict[str, Any]]:
    """Return binary predictions of which about a share is right; probabilities go with them."""
    draw = random.Random(seed)
    rows = []
    for index in range(60):
        label = index % 2
        prediction = label if draw.random() < share_right else 1 - label
        probabilities = [0.9, 0.1] if prediction == 0 else [0.1, 0.9]
        rows.append(
            {
                "index": index,
                "label": label,
                "prediction": prediction,
                "probabilities": probabilities,
                "loss": -math.log(probabilities[label]),
            }
        )
    return rows


@every
def test_a_metric_says_which_way_is_better(name: str) -> None:
    metric = registry.find("metrics", name)
    assert isinstance(metric.HIGHER_IS_BETTER, bool)
    assert registry.describe("metrics", name)


@every
def test_right_predictions_score_better_than_half_right_ones(name: str) -> None:
    metric = registry.find("metrics", name)
    right, half = (metric.score(_predictions(0, share)).value for share in (1.0, 0.6))
    assert (right > half) is metric.HIGHER_IS_BETTER


@every
def test_the_order_of_the_examples_changes_nothing(name: str) -> None:
    metric, rows = registry.find("metrics", name), _predictions(1, 0.7)
    shuffled = random.Random(0).sample(rows, len(rows))
    for ours, theirs in zip(metric.score(rows)[:2], metric.score(shuffled)[:2], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


@every
def test_a_score_has_a_standard_error_that_more_examples_lower(name: str) -> None:
    metric, rows = registry.find("metrics", name), _predictions(2, 0.7)
    few, many = metric.score(rows).standard_error, metric.score(rows * 4).standard_error
    assert 0 < many < few


@every
def test_without_examples_there_is_no_value_but_a_reason(name: str) -> None:
    score = registry.find("metrics", name).score([])
    assert score.value is None
    assert score.reason
