"""A run scored again says that its numbers are equal where they were compared, and where they are."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from written_runs import finish_writer

from graftlab import cli
from graftlab.inference.scores import differ


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a run that writes no texts on validation: there are losses and counts alone."""
    run = finish_writer(tmp_path_factory.mktemp("again"), "questions")
    (
        run.path / "manifest.json"
    ).unlink()  # as in runs of older versions: predictions may be changed
    return run


def evaluate(run: Any, *options: str) -> Any:
    result = CliRunner().invoke(cli.app, ["evaluate", str(run.path), *options])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("field", "change"), [("loss", 0.5), ("count", 3), ("correct", 2)], ids=str
)
def test_losses_and_counts_are_compared_where_there_are_no_texts(
    run: Any, field: str, change: float
) -> None:
    path: Path = run.predictions("validation")
    evaluate(run, "--split", "validation")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["prediction"] for row in rows} == {None}
    same = json.loads(evaluate(run, "--split", "validation", "--json"))
    assert same["difference"] == {"rows": 0, "largest": 0}

    before = path.read_text()
    rows[1][field] += change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(evaluate(run, "--split", "validation", "--json"))
    path.write_text(before)
    assert found["difference"] == {"rows": 0, "largest": pytest.approx(change)}
    assert found["predictions"].endswith("validation.again.jsonl")


NAN = float("nan")
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, float]]] = {
    "a loss that is not a number stays one": ({"loss": NAN}, {"loss": float("nan")}, (0, 0)),
    "and is nothing else": ({"loss": NAN}, {"loss": 1.0}, (0, float("inf"))),
    "an example that had no label": ({"loss": None}, {"loss": 1.0}, (0, float("inf"))),
    "a score": ({"prediction": 1.0}, {"prediction": 1.5}, (1, 0.5)),
    "a score that is not a number": ({"prediction": NAN}, {"prediction": float("nan")}, (0, 0)),
    "classes more": ({"probabilities": [1.0]}, {"probabilities": [1.0, 0.0]}, (0, float("inf"))),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_equal_that_was_not_compared(case: str) -> None:
    first, second, expected = CASES[case]
    empty = {"index": 0, "prediction": None, "loss": 0.0}
    assert differ([empty | first], [empty | second]) == expected
    assert differ([empty | second], [empty | first]) == expected
