"""Findings claim what their table carries and nothing else; the page holds it all, and needs nothing else."""

import json
import math
import re
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from graftlab import explanation
from graftlab.analyses import gradients
from graftlab.contracts import Asked
from graftlab.explanation import Model, findings, sentences
from graftlab.explanation.repeats import configurations
from graftlab.explanation.tables import Table
from graftlab.rundir import files
from graftlab.testing.analyses import PLANTED, Planted


class Line(NamedTuple):
    """A line of a table with two numbers and their nulls."""

    model: str
    checkpoint: int
    task_type: str
    layer: str
    number: int
    size: float | None
    null_size: float | None
    turn: float | None
    null_turn: float | None


def lines(model, apart, checkpoint=5, layers=6, seed=0):
    """Two weights a layer: `size` is `apart` from its null on average, `turn` is its null."""
    draws = np.random.default_rng(seed)
    return [
        Line(model, checkpoint, "t", f"{n}.{w}", n, null + apart + noise, null, turn, turn)
        for n in range(layers)
        for w in "qv"
        for null, noise, turn in [draws.normal(1, 0.01, 3) - [0, 1, 0]]
    ]


def test_an_interval_is_students():
    apart = np.random.default_rng(0).normal(1, 2, 7)
    theirs = stats.ttest_1samp(apart, 0)
    difference, low, high, p = findings.interval(apart, np.zeros(7))
    assert difference == pytest.approx(apart.mean())
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert p == pytest.approx(theirs.pvalue)
    assert findings.interval([2, 2, 2], [0, 0, 0]) == (2, 2, 2, 0)
    assert findings.interval([1, 2, 3], [1, 2, 3]) == (0, 0, 0, 1)


def test_a_number_beyond_its_null_is_told_with_both_and_its_interval_over_layers():
    rows = lines("one", 0.5)
    (size, turn) = findings.find({"spectra": rows}, {})
    layers = [np.mean([r.size - r.null_size for r in rows if r.number == n]) for n in range(6)]
    theirs = stats.ttest_1samp(layers, 0)
    assert (size.column, size.other, size.over, size.units) == ("size", None, "layers", 6)
    assert (size.low, size.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert size.corrected == pytest.approx(2 * theirs.pvalue)
    assert (size.beyond, turn.beyond) == (True, False)
    told = sentences.tell([size, turn])
    (said,) = told.beyond
    for number in (size.value, size.null, size.low, size.high):
        assert f"{number:.4g}" in said
    assert told.between == ()
    assert "turn" in told.not_told
    assert "size" not in told.not_told


def test_two_models_differ_by_what_is_left_when_each_has_its_null_taken_off():
    rows = [*lines("one", 0.5), *lines("two", 0.2, seed=1)]
    found = findings.find({"spectra": rows}, {})
    (pair,) = [f for f in found if f.other and f.column == "size"]
    assert pair.difference == pytest.approx(0.3, abs=0.02)
    assert pair.beyond
    (turn,) = [f for f in found if f.other and f.column == "turn"]
    assert not turn.beyond
    assert len(sentences.tell(found).between) == 1


def test_two_models_are_compared_over_the_weights_that_both_have_changed():
    """What one of them has beside these, in the same layers, is another weight and no difference."""
    both, more = lines("one", 0.5), lines("two", 0.5, seed=1)
    more += [row._replace(layer=f"{row.layer}.more", size=row.size + 9) for row in more]
    found = findings.find({"spectra": [*both, *more]}, {})
    (pair,) = [f for f in found if f.other and f.column == "size"]
    assert not pair.beyond
    assert pair.other_value == pytest.approx(1.5, abs=0.02)


def test_where_nothing_is_beyond_its_null_that_is_what_is_said():
    told = sentences.tell(findings.find({"spectra": lines("one", 0.0)}, {}))
    assert (told.beyond, told.between) == ((), ())
    assert "Nothing" in told.summary


def test_models_of_one_configuration_are_compared_over_their_seeds():
    """What differs between seeds by more than between layers is not told apart."""
    rows = [r for k, apart in enumerate((0.5, -0.5, 0.1)) for r in lines(f"s{k}", apart, seed=k)]
    alone = findings.find({"spectra": rows}, {})
    assert sum(f.beyond for f in alone if f.other is None) == 3
    (size, _) = findings.find({"spectra": rows}, dict.fromkeys(["s0", "s1", "s2"], "s"))
    assert (size.model, size.over, size.units, size.beyond) == ("s", "seeds", 3, False)


def test_only_the_last_checkpoint_counts_and_two_layers_are_too_few():
    rows = [*lines("one", 5.0, checkpoint=1), *lines("one", 0.5, checkpoint=2)]
    size = findings.find({"spectra": rows}, {})[0]
    assert size.difference == pytest.approx(0.5, abs=0.02)
    few = findings.find({"spectra": lines("one", 0.5, layers=2)}, {})
    assert few == []
    assert "compared" in sentences.tell(few).summary


def test_of_changes_that_are_their_null_a_call_claims_something_in_five_of_a_hundred():
    draws, claimed, calls = np.random.default_rng(0), 0, 200
    for _ in range(calls):
        rows = [
            Line("m", 1, "t", str(n), n, a, 0.0, b, 0.0)
            for n, (a, b) in enumerate(draws.normal(size=(5, 2)))
        ]
        claimed += any(f.beyond for f in findings.find({"spectra": rows}, {}))
    # five of a hundred, with three standard errors of 200 calls
    assert claimed / calls <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / calls)


def test_runs_that_only_their_seed_tells_apart_are_one_configuration(tmp_path):
    def model(name, **changed):
        run = tmp_path / name
        run.mkdir()
        files.write_json(
            run / "config.yaml",
            {"name": name, "seed": 0, "rank": 4, "task": {"split_seed": 0}} | changed,
        )
        return Model(name, (), run)

    models = [
        model("r4-seed0"), model("r4-seed1", seed=1), model("r8-seed0", rank=8), Model("other", ()),
        model("r4-seed2", seed=2, task={"split_seed": 2}),
    ]  # fmt: skip
    assert configurations(models) == {
        "r4-seed0": "r4", "r4-seed1": "r4", "r4-seed2": "r4", "r8-seed0": "r8-seed0",
        "other": "other",
    }  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    models = [
        Model(name, (PLANTED._replace(model=name),)) for name in ("<b>x</b>", "$a_b$ | [c](d)")
    ]
    tables, drawn = explanation.carry_out(models, out, ["spectra"], Asked(top=3), figures=False)
    return out, explanation.write(out, models, tables, drawn)


def test_the_page_needs_nothing_beside_itself_and_says_so(written):
    text = (written[0] / "analysis.html").read_text()
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert not re.findall(r"(?:src|href)=\"(?!#|svd_analysis/)", text)
    assert "prefers-color-scheme: dark" in text


def test_names_are_text_on_the_page_and_in_markdown(written):
    page, said = ((written[0] / f).read_text() for f in ("analysis.html", "findings.md"))
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page
    assert r"\<b\>x\</b\>" in said
    assert r"\$a\_b\$ \| \[c\]" in said


def test_the_record_holds_every_comparison_and_what_is_said_of_it(written):
    out, told = written
    record = json.loads((out / "findings.json").read_text())
    assert record["summary"] == told.summary
    for finding in record["findings"]:
        assert finding["beyond"] == (finding["corrected"] < 0.05)
        assert finding["model"] in finding["said"]


def of_gradients(model, trainable, weight):
    """Of four layers the norm of each mode, and that of all together, which is no layer."""
    line = gradients.Row(**dict.fromkeys(gradients.Row._fields))
    sizes = {"trainable": trainable, "weight": weight}
    own = [(m, f"{n}.q", n, size + n) for m, size in sizes.items() for n in range(4)]
    own += [(m, "global", None, 1000 * size) for m, size in sizes.items()]
    return [
        line._replace(
            model=model, layer_type="attention", param=p, mode=m, number=n, norm=v, sample="examples"
        )
        for m, p, n, v in own
    ]  # fmt: skip


def test_gradients_are_compared_layer_by_layer_in_each_mode_and_all_together_is_no_layer(tmp_path):
    rows = [*of_gradients("one", 1.0, 10.0), *of_gradients("two", 2.0, 40.0)]
    found = {f.mode: f for f in findings.find({"gradients": rows}, {})}
    assert {m: (f.units, f.difference) for m, f in found.items()} == {
        "trainable": (4, pytest.approx(-1.0)), "weight": (4, pytest.approx(-30.0)),
    }  # fmt: skip
    table = Table("gradients", rows, [tmp_path / "g.csv"])
    told = explanation.write(tmp_path, [Model(n, ()) for n in ("one", "two")], [table], [])
    assert len(told.between) == 2
    cells = re.findall("<td>norm</td>(.*)</tr>", (tmp_path / "analysis.html").read_text())
    assert re.findall(r">([\d.]+)<", cells[-1]) == ["2.5", "11.5", "3.5", "41.5"]


class Outside(Planted):
    """A subject of a family whose name leads out of a folder."""

    @property
    def about(self):
        return super().about._replace(task_type="../../../up")


def test_families_and_models_are_plain_names_in_paths(tmp_path):
    out, run = tmp_path / "a" / "b" / "out", tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (run / "config.yaml").write_text("name: run\n")
    models = [Model(f"../../{n}", (Outside(n, (), {}, 1),), run) for n in ("one", "two")]
    tables, drawn = explanation.carry_out(models, out, ["gradients"])
    explanation.write(out, models, tables, drawn)
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.png")} == {"a"}
    assert all(out in path.parents for path in tmp_path.rglob("*.png"))
    assert drawn
