"""What the pages say of our own measurements is what was measured: sentences against `bench/results`."""

import csv
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
STUDIES = re.compile(r"<!-- study: ([\w-]+) .*?<!-- study: end -->", re.S)


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def runs(study):
    with (RESULTS / study / "runs.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ratio(result, figure, ours, peer):
    """Return the median over the rounds of ours / peer's, as `bench/harness.py` defines it."""
    turns = json.loads((RESULTS / f"{result}.json").read_text(encoding="utf-8"))["turns"]
    pairs = zip(turns[ours], turns[peer], strict=True)
    found = sorted(own[figure] / other[figure] for own, other in pairs)
    return (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2


def test_every_interval_in_the_text_on_jelly_stands_in_a_table():
    """A sentence that outlives the run that it was written for is seen."""
    text = page("docs/methods/jelly.md")
    measured = set(re.findall(r"[-+]\d+\.\d+ to [-+]\d+\.\d+", "".join(_tables(text))))
    said = re.findall(r"\(([-+]\d+\.\d+ to\s+[-+]\d+\.\d+)\)", STUDIES.sub("", text))
    assert len(said) > 8
    assert [interval for interval in said if re.sub(r"\s+", " ", interval) not in measured] == []


def _tables(text):
    return [found.group(0) for found in STUDIES.finditer(text)]


def test_the_tip_row_is_said_to_switch_where_it_did():
    row = next(
        row
        for row in json.loads((RESULTS / "studies" / "jelly-trec.json").read_text())["rows"]
        if row["method"] == "jelly mode=dynamic switch_method=tip"
    )
    steps = f"it came at steps {min(row['switch_steps'])} to {max(row['switch_steps'])}"
    assert steps in page("docs/methods/jelly.md")


def test_the_runs_on_cola_are_counted_as_they_ended():
    found = runs("pifi-cola")
    largest = [run for run in found if float(run["test/accuracy"]) == 0.68875]
    assert f"{len(largest)} of {len(found)} runs" in page("docs/methods/pifi.md")
    (other,) = [run for run in found if run not in largest]
    assert (other["method"], other["training.learning_rate"]) == ("pifi plug=random", "1.5e-05")
    assert f"{100 * float(other['test/accuracy']):.2f}" == "69.00"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("{:.1f} times the tokens per second", ("sft_throughput", "tokens/s", "trl + PEFT")),
        ("{:.1f} times\n  with its batches grouped",
         ("sft_throughput", "tokens/s", "trl + PEFT, group_by_length")),
    ],
)  # fmt: skip
def test_the_readmes_speeds_are_those_of_the_benchmark(said, expected):
    result, figure, peer = expected
    assert said.format(ratio(result, figure, "graftlab", peer)) in page("README.md")


def test_a_claim_that_was_not_reached_is_said_to_be_so(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    from harness import markdown

    result = json.loads((RESULTS / "startup.json").read_text(encoding="utf-8"))
    assert "Not reached" not in markdown(result)
    for turn in result["turns"]["graftlab --help"]:
        turn["seconds"] = 0.6
    missed = "**Not reached:** seconds: graftlab --help is 0.6 (0.6 to 0.6), and at most 0.5"
    assert missed in markdown(result)
