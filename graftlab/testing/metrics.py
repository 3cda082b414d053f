"""The promises of every metric, over all registered names and those of the catalogue.

A metric is tried on predictions of the form that its `READS` names (`graftlab.metrics`): classes, tokens,
texts or programs; one that reads inputs finds a `text` among them. One that wants others (ranks) has a
function `example() -> list[dict]` in its module: at least ten predictions as `Task.predict` returns them,
some right and some wrong. `RANGE`, a pair, stands there if it is not (-1, 1).
"""

import contextlib
import copy
import json
import math
import random
import statistics
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from pydantic import ValidationError

from graftlab.config import Problems, Section
from graftlab.config import given as document
from graftlab.contracts import Score
from graftlab.errors import DataError, ModelError
from graftlab.runfile import measures

every = pytest.mark.parametrize("name", measures.names())
WRONG = 7  # every seventh example below is predicted wrong


def _two_classes() -> list[dict[str, object]]:
    labels = [(i // 3) % 2 for i in range(50)]
    return [_predicted(i, y, 1 - y if i % WRONG == 0 else y) for i, y in enumerate(labels)]


def _predicted(index: int, label: int, prediction: int) -> dict[str, object]:
    shares = [0.9, 0.1] if prediction == 0 else [0.1, 0.9]
    row = {"index": index, "label": label, "prediction": prediction}
    return {**row, "probabilities": shares, "loss": -math.log(shares[label])}


def _texts() -> list[dict[str, object]]:
    """Labels that every metric of texts can read: sentences, with an answer as GSM8K and MATH mark it."""
    rows = []
    for i in range(50):
        label = f"She pays {i} dollars for {2 * i} red apples: \\boxed{{{3 * i}}}\n#### {3 * i}"
        wrong = f"He sells {i + 1} books. \\boxed{{{3 * i + 1}}}\n#### {3 * i + 1}"
        rows.append({"index": i, "label": label, "prediction": wrong if i % WRONG == 0 else label})
    return rows


def _tokens() -> list[dict[str, object]]:
    return [
        {**row, "loss": 0.7 + (i % 5), "count": 4 + i % 3, "correct": i % 4}
        for i, row in enumerate(_texts())
    ]


def _programs() -> list[dict[str, object]]:
    """A hundred programs for each problem, of which none, some or all pass."""
    return [
        {**row, "prediction": [""] * 100, "passed": [j < i % 8 for j in range(100)]}
        for i, row in enumerate(_texts())
    ]


EXAMPLES = {"classes": _two_classes, "texts": _texts, "tokens": _tokens, "programs": _programs}
WITHOUT_LABEL = {"label": None, "loss": None, "correct": None}


def _right(row: dict[str, Any]) -> dict[str, object]:
    if row["label"] in (0, 1) and "probabilities" in row:
        return {**row, **_predicted(row["index"], row["label"], row["label"])}
    if "correct" in row:
        return {**row, "loss": 0.0, "correct": row["count"]}
    if "passed" in row:
        return {**row, "passed": [True] * len(row["passed"])}
    return {**row, "prediction": row["label"]}


def _case(name: str) -> tuple[measures.Measure, list[dict[str, object]]]:
    metric = measures.measure(name)
    if metric.module.PACKAGE:
        pytest.importorskip(metric.module.PACKAGE)
    try:
        rows = (metric.module.example or EXAMPLES[metric.module.READS])()
        if metric.module.READS_INPUTS:
            rows = [{"inputs": {"text": f"{row['label']} it is"}, **row} for row in rows]
        metric.score(rows[:1])
    except ModelError as error:
        pytest.skip(f"the model that it asks is not there: {error}")
    return metric, rows


def _equal(one: Score, other: Score) -> None:
    """Assert equality up to the rounding of float64 sums in another order."""
    assert one.reason == other.reason
    for a, b in ((one.value, other.value), (one.standard_error, other.standard_error)):
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, rel=1e-9, abs=1e-12)


@every
def test_a_score_is_finite_in_its_range_and_knows_its_error(name: str) -> None:
    metric, predictions = _case(name)
    score = metric.score(predictions)
    low, high = metric.module.RANGE
    assert isinstance(score, Score)
    assert isinstance(score.value, float)
    assert low <= score.value <= high
    if score.standard_error is None:
        assert score.reason
    else:
        assert 0 < score.standard_error < math.inf
        assert score.reason is None


@every
def test_the_values_of_single_predictions_make_the_score(name: str) -> None:
    metric, predictions = _case(name)
    found = metric.each(predictions)
    if found is None:
        pytest.skip(f"{name} is no mean over predictions")
    known = [value for value in found if value is not None]
    assert len(found) == len(predictions)
    average = statistics.fmean if metric.module.AVERAGE == "mean" else statistics.median
    assert average(known) == pytest.approx(metric.score(predictions).value, rel=1e-9)


@every
def test_the_order_and_the_numbers_of_the_examples_change_nothing(name: str) -> None:
    metric, predictions = _case(name)
    mixed = copy.deepcopy(predictions)
    random.Random(0).shuffle(mixed)
    renumbered = [{**row, "index": 1000 + place} for place, row in enumerate(mixed)]
    _equal(metric.score(renumbered), metric.score(predictions))


@every
def test_scoring_changes_no_prediction(name: str) -> None:
    metric, predictions = _case(name)
    before = copy.deepcopy(predictions)
    metric.score(predictions)
    np.testing.assert_equal(predictions, before)


@every
def test_right_predictions_score_best(name: str) -> None:
    metric, predictions = _case(name)
    right = [_right(row) for row in predictions]
    best, value = metric.score(right).value, metric.score(predictions).value
    assert isinstance(metric.module.HIGHER_IS_BETTER, bool)
    assert best is not None
    assert value is not None
    assert best > value if metric.module.HIGHER_IS_BETTER else best < value


@every
def test_more_examples_of_the_same_make_the_error_smaller(name: str) -> None:
    metric, predictions = _case(name)
    one, nine = metric.score(predictions), metric.score(predictions * 9)
    if one.standard_error is None:
        pytest.skip(f"{name} has no standard error: {one.reason}")
    # A third, by the square root of the number; 5 % for what is not linear in the examples.
    assert nine.standard_error == pytest.approx(one.standard_error / 3, rel=0.05)


@every
def test_where_it_is_not_defined_it_has_no_value_and_says_why(name: str) -> None:
    metric, predictions = _case(name)
    score = metric.score([])
    assert score.value is score.standard_error is None
    assert score.reason
    same = [{**row, "prediction": predictions[0]["prediction"]} for row in predictions]
    alike = [{**predictions[0], "index": i} for i in range(3)]
    for odd in (same, alike, predictions[:1]):
        score = metric.score(odd)
        assert score.reason if score.value is None else math.isfinite(score.value)


@every
def test_an_example_without_a_label_is_refused_not_scored(name: str) -> None:
    metric, predictions = _case(name)
    with pytest.raises(DataError, match="label"):
        metric.score([*predictions, {**predictions[0], **WITHOUT_LABEL}])


@every
def test_what_it_reads_is_known_and_its_details_are_json(name: str) -> None:
    metric, predictions = _case(name)
    assert metric.module.READS in EXAMPLES
    details = metric.score(predictions).details
    assert json.loads(json.dumps(details)) == details


@every
def test_what_it_explains_of_a_prediction_is_json(name: str) -> None:
    metric, predictions = _case(name)
    if metric.module.explain is None:
        pytest.skip(f"{name} explains nothing")
    found = metric.explain(predictions[1])
    assert found
    assert json.loads(json.dumps(found)) == found


def _others(annotation: object, value: object) -> Iterator[object]:
    """Yield some other values that a setting may have: of each of its types."""
    if get_origin(annotation) is Literal:
        yield from (other for other in get_args(annotation) if other != value)
    elif get_args(annotation):
        for inner in get_args(annotation):
            yield from _others(inner, value)
    elif annotation in (int, float):
        yield annotation((value if isinstance(value, int | float) else 0) + 1)
    elif annotation is bool:
        yield not value
    elif annotation is str:
        yield 'other, "quoted" (words) / and=more'


def _settings(config: type[Section]) -> Iterator[Section]:
    """Yield the usual settings, and those with one field changed, where that is allowed by itself."""
    usual = config()
    yield usual
    for field, about in config.model_fields.items():
        for other in _others(about.annotation, getattr(usual, field)):
            with contextlib.suppress(ValidationError):
                yield config(**{field: other})


@every
def test_settings_are_plain_have_usual_values_and_are_told_by_the_name(name: str) -> None:
    config = measures.measure(name).module.Config
    if config is None:
        pytest.skip(f"{name} has no settings")
    module = measures.catalogue()[name].module if name in measures.catalogue() else name
    names = set()
    for settings in _settings(config):
        given = settings.model_dump(exclude_defaults=True)
        assert all(isinstance(value, str | int | float | bool) for value in given.values())
        problems = Problems()
        read = measures.read([{"name": module, **given}], (), document({}), problems)
        problems.raise_if_any()
        assert measures.measure(read[0]).config == settings
        assert measures.measure(read[0]).name == read[0]
        assert "/" not in read[0]
        names.add(read[0])
    assert len(names) == len(list(_settings(config)))
