"""Differences of rows: what they are judged by, what is corrected, and what is said where nothing can be."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from graftlab.rundir.run import Run
from graftlab.runs import units
from graftlab.study import difference_table, grids
from graftlab.study.differences import differences
from graftlab.study.records import Row, Summary
from graftlab.study.rows import first_metric

SEEDS = (0, 1, 2, 3, 4)


def row(label, values, metric="accuracy", higher=True, place=None, runs=None):
    known = [value for value in values.values() if value is not None]
    mean = math.fsum(known) / len(known) if known else None
    summary = Summary(mean, None, None, values)
    return Row(
        "trec", "minilm", label, {}, metric, higher, summary, summary, 1, 2, None, None,
        runs or {seed: f"{label}-{seed}" for seed in values}, {}, label=label, place=place,
    )  # fmt: skip


def predicted(label, seed, right, wrong_label=None, sources=None):
    """Write the predictions of a run that is right where `right` says so; return its accuracy."""
    path = Path("runs") / f"{label}-{seed}" / "predictions" / "test.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"index": n, "label": n % 3 if wrong_label is None else wrong_label, "loss": 0.5,
         "prediction": n % 3 if hit else 3}
        for n, hit in enumerate(right)
    ]  # fmt: skip
    for n, line in enumerate(lines if sources else ()):
        line["source"] = n // (len(lines) // sources)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return sum(right) / len(right)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hits():
    """Return right or wrong of 5 seeds and 200 examples, at a rate."""
    draws = np.random.default_rng(0)
    return lambda rate, seeds=SEEDS: {
        seed: (draws.random(200) < rate + 0.02 * draws.normal()).tolist() for seed in seeds
    }


def with_predictions(label, right):
    return row(label, {seed: predicted(label, seed, own) for seed, own in right.items()})


# What leads


def test_scores_alone_are_judged_by_the_paired_t_of_scipy():
    one, two = (dict(zip(SEEDS, own, strict=True)) for own in
                ([0.9, 0.91, 0.88, 0.92, 0.9], [0.85, 0.9, 0.86, 0.88, 0.87]))  # fmt: skip
    (found,) = differences([[row("a", one), row("b", two)]], None)
    wanted = stats.ttest_rel(list(one.values()), list(two.values()))
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval()))
    assert (found.procedure, found.degrees_of_freedom) == ("seeds, paired", 4)
    assert (found.better, found.pairs, found.seeds, found.examples) == ("a", 1, 5, None)


def test_other_seeds_are_judged_by_welchs_t_and_it_is_said():
    one, two = [0.9, 0.91, 0.88], [0.85, 0.9, 0.86, 0.88]
    (found,) = differences(
        [[row("a", dict(enumerate(one))), row("b", dict(enumerate(two, start=1)))]], None
    )
    wanted = stats.ttest_ind(one, two, equal_var=False)
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.degrees_of_freedom == pytest.approx(wanted.df)
    assert (found.procedure, found.seeds) == ("seeds, not paired", 3)
    assert "other seeds" in found.reason


def test_predictions_make_the_examples_a_sample_too(hits):
    """Two methods that differ on the same examples at every seed: seeds alone would be all too sure."""
    first, second = hits(0.8), hits(0.8)
    for seed in SEEDS:
        first[seed][:30], second[seed][:30] = [True] * 30, [False] * 30
        first[seed][30:60], second[seed][30:60] = [False] * 30, [True] * 30
    rows = [with_predictions("a", first), with_predictions("b", second)]
    (found,) = differences([rows], Path("runs"))
    (alone,) = differences([rows], None)
    assert (found.procedure, found.examples) == ("seeds and examples, paired", 200)
    assert found.standard_error > 2 * alone.standard_error
    assert found.difference == pytest.approx(alone.difference)


def test_one_seed_has_an_interval_over_examples_and_says_so(hits):
    rows = [with_predictions(name, hits(0.7, [0])) for name in "ab"]
    (found,) = differences([rows], Path("runs"))
    assert (found.procedure, found.seeds) == ("examples of one seed", 1)
    assert "other seeds" in found.reason
    assert found.low < found.difference < found.high
    assert found.seeds_wanted is None
    assert list(found.beside.mcnemar_p) == [0]


def test_one_seed_calls_no_row_better_and_is_no_pair_to_correct_for(hits):
    several = [row(n, dict(enumerate(v))) for n, v in (("c", [0.9, 0.8]), ("d", [0.5, 0.6]))]
    rows = [with_predictions("a", hits(0.95, [0])), with_predictions("b", hits(0.4, [0]))]
    found, other = differences([rows, several], Path("runs"))
    assert found.p < 1e-6
    assert (found.p_holm, found.better, found.smallest_visible) == (None, None, None)
    assert found.low > 0
    assert (other.pairs, other.p_holm) == (1, other.p)


def test_one_seed_beside_another_one_says_both(hits):
    rows = [with_predictions("a", hits(0.9, [0])), with_predictions("b", hits(0.4, [1]))]
    (found,) = differences([rows], Path("runs"))
    assert found.procedure == "examples of one seed"
    assert found.reason.count("other seeds") == 2  # those of the rows, and those that were not run


def test_seeds_that_draw_their_own_splits_are_judged_by_the_corrected_resampled_t(hits):
    """Rows of a file that is sorted by class have the same labels at every seed, and are others still."""
    rows = [with_predictions(name, hits(0.8)) for name in "ab"]
    overlaps = {f"{name}-{seed}": 0.2 / 0.8 for name in "ab" for seed in SEEDS}
    (found,) = differences([rows], Path("runs"), overlaps)
    gaps = [rows[0].score.values[seed] - rows[1].score.values[seed] for seed in SEEDS]
    error = math.sqrt(np.var(gaps, ddof=1) * (1 / 5 + 1 / 4))
    assert found.standard_error == pytest.approx(error)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(np.mean(gaps)) / error, 4))
    assert (found.procedure, found.examples) == ("seeds with their splits, paired", None)
    assert "splits" in found.reason
    beside, usual = found.beside, differences([rows], Path("runs"))[0].beside
    assert None not in (usual.permutation_p, usual.epsilon_min)  # they take seeds for independent
    assert (beside.permutation_p, beside.permutation_smallest_p) == (None, None)
    assert (beside.epsilon_min, beside.epsilon_min_other) == (None, None)
    assert beside.improvement == usual.improvement


def test_the_interval_of_one_seed_is_the_t_of_the_groups(hits):
    rows = [with_predictions(name, hits(0.7, [0])) for name in "ab"]
    (found,) = differences([rows], Path("runs"))
    own = [units.of_run(Run(Path("runs") / f"{name}-0"), "test", "accuracy") for name in "ab"]
    assert [one.values.mean() for one in own] == pytest.approx([r.score.mean for r in rows])
    wanted = stats.ttest_rel(own[0].values, own[1].values).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(wanted))


def test_runs_that_were_asked_other_examples_are_judged_by_seeds(hits):
    rows = [with_predictions("a", hits(0.8))]
    values = {s: predicted("b", s, own, wrong_label=1) for s, own in hits(0.8).items()}
    (found,) = differences([[*rows, row("b", values)]], Path("runs"))
    assert found.procedure == "seeds, paired"
    assert "other examples" in found.reason


def test_examples_of_one_source_are_one_sample():
    """All examples of a source are right or wrong together: 20 answers, each ten times over."""
    draws = np.random.default_rng(0)
    right = {name: np.repeat(draws.random(20) < 0.6, 10) for name in "ab"}
    found = {}
    for sources in (None, 20):
        rows = [
            row(n, {0: predicted(n, 0, own.tolist(), sources=sources)}) for n, own in right.items()
        ]
        (found[sources],) = differences([rows], Path("runs"))
    once = [own[::10].astype(float) for own in right.values()]
    wanted = stats.ttest_rel(*once).confidence_interval()
    assert (found[20].low, found[20].high) == pytest.approx(tuple(wanted))
    assert (found[20].sources, found[None].sources) == (20, None)
    assert found[20].standard_error > 1.5 * found[None].standard_error


# Correction


def test_all_pairs_of_the_study_are_corrected_together():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    draws = np.random.default_rng(1)
    shifts = {"a": 0, "b": 1, "c": 3}
    groups = [
        [row(name, dict(enumerate(draws.normal(shift, 1, 5)))) for name, shift in shifts.items()]
        for _ in range(2)
    ]
    found = differences(groups, None)
    assert [one.pairs for one in found] == [6] * 6
    for field, method in (("p_holm", "holm"), ("p_benjamini_hochberg", "fdr_bh")):
        wanted = multitest.multipletests([one.p for one in found], method=method)[1]
        assert [getattr(one, field) for one in found] == pytest.approx(list(wanted))
    assert all((one.better is not None) == (one.p_holm < 0.05) for one in found)


def test_what_is_visible_is_corrected_for_all_pairs_too():
    power_of = pytest.importorskip("statsmodels.stats.power").TTestPower()
    draws = np.random.default_rng(1)
    rows = [
        row(name, dict(enumerate(draws.normal(at / 2, 1, 5)))) for at, name in enumerate("abcd")
    ]
    shift = power_of.solve_power(nobs=5, alpha=0.05 / 6, power=0.8)
    for one in differences([rows], None):
        deviation = one.standard_error * math.sqrt(5)
        assert one.smallest_visible == pytest.approx(deviation * shift, rel=1e-3)
        enough = [power_of.power(abs(one.difference) / deviation, one.seeds_wanted - less, 0.05 / 6)
                  for less in (0, 1)]  # fmt: skip
        assert enough[0] >= 0.8 > enough[1]


@pytest.mark.parametrize("higher", [True, False])
def test_the_better_row_is_the_one_whose_metric_is_on_the_right_side(higher):
    one, two = {0: 0.9, 1: 0.91, 2: 0.9, 3: 0.92}, {0: 0.1, 1: 0.12, 2: 0.13, 3: 0.11}
    (found,) = differences([[row("a", one, higher=higher), row("b", two, higher=higher)]], None)
    assert found.better == ("a" if higher else "b")
    assert found.beside.improvement == (1.0 if higher else 0.0)


def test_turned_round_a_difference_says_the_same():
    one, two = {0: 0.9, 1: 0.91, 2: 0.87}, {0: 0.85, 1: 0.9, 2: 0.86}
    (found,) = differences([[row("a", one), row("b", two)]], None)
    (other,) = differences([[row("b", two), row("a", one)]], None)
    turned = difference_table.turned(found)
    for name in ("first", "difference", "low", "high", "p", "better"):
        assert getattr(turned, name) == pytest.approx(getattr(other, name))
    assert turned.beside.improvement == pytest.approx(other.beside.improvement)


# Where nothing can be said


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ({0: None}, {0: 0.5}, "no score"),
        ({0: 0.5}, {0: 0.6}, "one seed"),
        ({0: 0.5}, {0: 0.6, 1: 0.7}, "one seed, the other several"),
        ({0: 0.5, 1: 0.6}, {0: 0.4, 1: 0.5}, "the same at every seed"),
    ],
)
def test_what_cannot_be_judged_has_no_p_and_a_reason(one, two, said):
    (found,) = differences([[row("a", one), row("b", two)]], None)
    assert (found.p, found.p_holm, found.better, found.low) == (None, None, None, None)
    assert said in found.reason


def test_equal_predictions_of_all_runs_leave_nothing_to_judge(hits):
    same = hits(0.7)
    rows = [with_predictions(name, same) for name in "ab"]
    (found,) = differences([rows], Path("runs"))
    assert (found.difference, found.p, found.better) == (0, None, None)
    assert found.reason


def test_constant_predictions_are_scores_like_any(hits):
    rows = [with_predictions("a", {s: [n % 3 == 0 for n in range(200)] for s in SEEDS}),
            with_predictions("b", hits(0.8))]  # fmt: skip
    (found,) = differences([rows], Path("runs"))
    assert found.better == "b"


def test_a_damaged_file_of_predictions_is_a_reason_and_no_crash(hits):
    rows = [with_predictions(name, hits(0.8)) for name in "ab"]
    Path("runs/a-3/predictions/test.jsonl").write_text("{not json\n", encoding="utf-8")
    (found,) = differences([rows], Path("runs"))
    assert found.procedure == "seeds, paired"
    assert "not JSON" in found.reason


def test_a_metric_that_cannot_be_computed_any_more_leaves_the_seeds_to_judge(hits):
    rows = [with_predictions(name, hits(0.8)) for name in "ab"]
    for path in Path("runs").glob("*/predictions/test.jsonl"):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        said = [line | {"label": "good", "prediction": "bad"} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in said), encoding="utf-8")
    for one in rows:
        one.metric = r'bertscore(model="\u002fnowhere")'
    (found,) = differences([rows], Path("runs"))
    assert found.procedure == "seeds, paired"
    assert "computed" in found.reason


# Tables and tuning


def test_every_difference_is_a_line_whose_columns_are_plain_values(hits):
    rows = [with_predictions(name, hits(0.8)) for name in "abc"]
    lines = [difference_table.flat(one) for one in differences([rows], Path("runs"))]
    assert [(line["first"], line["second"]) for line in lines] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert all(isinstance(v, int | float | str | None) for line in lines for v in line.values())


def test_the_words_say_whether_a_difference_can_be_seen():
    equal = [row(name, {0: 0.9, 1: 0.91 + 0.01 * n, 2: 0.9}) for n, name in enumerate("abc")]
    assert "no difference" in difference_table.sentences(differences([equal], None))[0]


@pytest.mark.parametrize(
    ("chosen", "tried", "edges"),
    [
        ("0.01", ["0.001", "0.01"], {"rate": "largest"}),
        ("0.001", ["0.001", "0.01"], {"rate": "smallest"}),
        ("0.003", ["0.001", "0.003", "0.01"], {}),
        ("0.01", ["0.01"], {}),
        ("cosine", ["cosine", "linear"], {}),
        ("1e-05", ["0.0001", "1e-05", "0.001"], {"rate": "smallest"}),
    ],
)
def test_the_best_at_an_end_of_what_was_tried_is_flagged(chosen, tried, edges):
    assert grids.edges({"rate": chosen}, [{"rate": value} for value in tried]) == edges


def test_what_has_diverged_beyond_all_numbers_is_judged_by_nothing_and_stays_json():
    one, two = {0: 1e200, 1: 9e300, 2: 3.0}, {0: 2.0, 1: 3.0, 2: 4.0}
    pair = [row("a", one, "perplexity", False), row("b", two, "perplexity", False)]
    (found,) = differences([pair], None)
    assert (found.p, found.better) == (None, None)
    assert found.reason
    json.dumps(difference_table.flat(found), allow_nan=False)


def test_a_mean_of_what_is_better_high_and_what_is_better_low_ranks_nothing():
    def result(*names):
        return {"metrics": {"test": {name: {"value": None} for name in names}}}

    mixed = result("mean", "a/accuracy", "a/loss", "b/perplexity", "b/loss")
    assert first_metric([mixed]) == ("a/accuracy", True)
    assert first_metric([result("mean", "a/accuracy", "b/f1")]) == ("mean", True)
    assert first_metric([]) == (None, True)
