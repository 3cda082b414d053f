"""Reports: what a page says of a study, all of it escaped, and the same tables for papers and cards."""

import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import made_studies
import pytest
from test_browser import PORT, TOKEN, ask
from typer.testing import CliRunner

from graftlab import cli, config, report, study
from graftlab.browser import server
from graftlab.errors import CheckpointError, ConfigError
from graftlab.report import (
    answer,
    chart,
    disagreement,
    documents,
    page,
    search_page,
    study_charts,
    study_page,
    tables,
)
from graftlab.report.chart import Axis, Series
from graftlab.report.study_page import Studied
from graftlab.report.tables import Cell, Table
from graftlab.rundir.run import Run
from graftlab.study import whole_file

HOSTILE = "<script>alert(1)</script>$x$\x1b[31m\\input{x}|`"
FETCHING = {"iframe", "object", "embed", "base", "form"}
METHODS = ["head", "lora"]
SKILL = {"head": 0.3, "lora": 0.95}


class Read(HTMLParser):
    """Collects a page's tags, what they point to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data", "action")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of two methods that are far apart, with its folder."""
    folder = tmp_path_factory.mktemp("made")
    return made_studies.compared(folder, METHODS, 5, SKILL), folder / "made"


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["report", *map(str, arguments)])


def test_a_page_may_load_nothing_and_run_its_own_script_alone(made):
    text = report.html(made[1], {})
    read = Read(text)
    assert not {*read.tags} & FETCHING
    assert all(link.startswith(("#", "data:")) for link in read.links)
    script = re.search(r"<script>(.*)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = report.policy()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert 'style="' not in text


def test_the_answer_names_what_is_seen_to_be_better(made):
    said = answer.answer(made[0])
    assert said.startswith("lora has")
    assert made[0].differences[0].better == "lora"
    assert "told apart" not in said


def test_of_equal_methods_the_answer_is_that_no_difference_can_be_seen(tmp_path):
    found = made_studies.compared(tmp_path, METHODS, 5, {"head": 0.7, "lora": 0.7})
    assert all(one.better is None for one in found.differences)
    assert answer.answer(found).startswith("No difference")


def test_every_difference_of_the_page_is_that_of_the_comparison(made):
    found, folder = made
    text = Read(report.html(folder, {})).text
    for one in found.differences:
        assert (
            f"{one.low:+.4f} to {one.high:+.4f}" in text
            or f"{-one.high:+.4f} to {-one.low:+.4f}" in text
        )


def test_nothing_compared_is_a_page_that_says_so(tmp_path):
    found = study.Comparison("none", (0,), None, (), (), ())
    page = study_page.of(Studied.of(found, tmp_path), {})
    assert page.answer == answer.answer(found)
    assert page.sections == []


def test_one_seed_is_said_to_say_nothing_of_others(tmp_path):
    found = made_studies.compared(tmp_path, METHODS, 1, SKILL)
    assert any(line.startswith("Other seeds") for line in answer.not_measured(found))


def test_a_row_without_any_value_has_empty_cells_and_its_cause(tmp_path):
    plan, done = made_studies.make(tmp_path, METHODS, 2, SKILL)
    failed = [replace(run, cause="Diverged") if "lora" in run.folder.name else run for run in done]
    for run in failed:
        if run.cause:
            Run(run.folder).result.unlink()
    found = study.compare(plan, failed)
    study.write(found, tmp_path / "made")
    text = Read(report.html(tmp_path / "made", {})).text
    assert "Diverged" in text
    assert "nan" not in text.lower().replace("finance", "")
    assert "None" not in text


def test_a_damaged_run_is_left_out_and_named(made, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(made[1], folder)
    (folder / "runs" / "lora-seed0" / "metrics.jsonl").write_text("nonsense\n")
    studied = Studied.of(made[0], folder)
    assert "lora-seed0" not in studied.sound
    assert any("lora-seed0" in line for line in study_page.unplanned(studied))
    assert "lora-seed0" in report.html(folder, {})


def test_runs_of_another_version_are_flagged(made, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(made[1], folder)
    path = folder / "runs" / "lora-seed0"
    environment = json.loads((path / "environment.json").read_text())
    environment["graftlab"]["commit"] = "d" * 40
    (path / "environment.json").write_text(json.dumps(environment))
    (path / "manifest.json").unlink()
    assert "d" * 40 in Read(report.html(folder, {})).text


@pytest.mark.parametrize(
    "field", ["name", "cause", "hole", "label", "not_paired", "task", "warnings"]
)
def test_hostile_text_is_shown_and_not_run(made, field):
    found, folder = made
    row, run = found.rows[0], found.runs[0]
    if field == "name":
        found = replace(found, name=HOSTILE)
    elif field in ("cause", "warnings"):
        found = replace(found, runs=({**run, field: HOSTILE}, *found.runs[1:]))
    else:
        changed = {
            "hole": {"holes": {1: HOSTILE}},
            "label": {"label": HOSTILE, "method": HOSTILE},
            "not_paired": {"not_paired": [HOSTILE]},
            "task": {"task": HOSTILE},
        }[field]
        found = replace(found, rows=(replace(row, **changed), *found.rows[1:]))
    text = documents.page.render(study_page.of(Studied.of(found, folder), {}))
    read = Read(text)
    assert read.tags.count("script") == 1
    assert "<script>alert(1)</script>" in read.text


def test_hostile_cells_are_text_in_every_form():
    table = Table("t", HOSTILE, ("a",), ((Cell(HOSTILE),), (Cell("=1+1"),)))
    assert "<script>" not in tables.html(table)
    assert "\\input" not in tables.latex(table)
    assert "\x1b" not in tables.latex(table) + tables.markdown(table)
    assert tables.markdown(table).count("\n| ") == 4  # no cell begins a line of its own
    assert "<script>" not in tables.markdown(table).replace("\\<", "")
    assert list(csv.reader(io.StringIO(tables.csv(table))))[2] == ["'=1+1"]


def test_latex_is_a_table_of_booktabs_with_as_many_cells_a_row(made):
    text = report.as_text(made[1], "latex")
    for part in re.findall(r"\\begin{tabular}{(\w+)}(.*?)\\end{tabular}", text, re.S):
        rows = [line for line in part[1].splitlines() if line.endswith("\\\\")]
        assert rows
        assert all(len(re.findall(r"(?<!\\)&", row)) == len(part[0]) - 1 for row in rows)
        assert part[1].count("rule") == 3


def test_csv_has_every_figure_whole(made):
    rows = list(csv.DictReader(io.StringIO(report.as_text(made[1], "csv"))))
    assert {row["method"]: float(row["score"]) for row in rows} == {
        row.method: row.score.mean for row in made[0].rows
    }


@pytest.mark.parametrize("form", ["markdown", "card"])
def test_markdown_has_the_ranking(made, form):
    text = report.as_text(made[1], form)
    for row in made[0].rows:
        assert f"{row.score.mean:.4f}" in text


def test_a_run_has_a_page_and_a_card_with_intervals_and_what_was_not_verified(made):
    path = made[1] / "runs" / "lora-seed0"
    one = Run(path).read_result()["metrics"]["test"]["accuracy"]
    low = one["value"] - 1.959964 * one["standard_error"]
    for text in (report.html(path, {}), report.as_text(path, "card")):
        assert f"{low:.4f} to" in text
        assert "seed 0" in text
    assert "graftlab run config.yaml" in report.html(path, {})


def test_a_search_is_told_from_its_files(tmp_path):
    best = {
        "trial": 1,
        "values": {"training.learning_rate": 0.01},
        "scores": {"accuracy": 0.9},
        "run": None,
    }
    (tmp_path / "search.json").write_text(
        json.dumps({"name": "s", "space": {"training.learning_rate": {}}})
    )
    (tmp_path / "summary.json").write_text(json.dumps({
        "objectives": [{"name": "accuracy", "higher": True}], "best": best, "default": 0.5,
        "edges": {"training.learning_rate": "largest"}, "expected_best": [0.7, 0.9], "causes": {HOSTILE: 1},
    }))  # fmt: skip
    lines = ["trial,state,training.learning_rate,accuracy,seconds,run,cause", "0,complete,0.001,0.5,1.0,,",
             "1,complete,0.01,0.9,1.0,,", f'2,fail,0.1,,1.0,,"{HOSTILE}"',
             "3,pruned,0.05,0.95,1.0,,"]  # fmt: skip
    (tmp_path / "trials.csv").write_text("\n".join(lines))
    read = Read(report.html(tmp_path, {}))
    best_so_far = set(re.findall(r"far: ([0-9.]+)", read.text))
    assert best_so_far == {"0.5", "0.9"}  # .95 is a pruned trial's, in the middle of its training
    assert "largest" in read.text
    assert read.tags.count("script") == 1
    assert report.as_text(tmp_path, "csv").count("complete") == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": 1}', '{"rows": [{"task": "t"}]}'])
def test_a_damaged_comparison_is_refused_by_its_file(tmp_path, content):
    (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(CheckpointError) as refused:
        report.html(tmp_path, {})
    assert refused.value.problems[0].place.file == str(tmp_path / "comparison.json")


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(ConfigError) as refused:
        report.kind(tmp_path)
    assert refused.value.problems[0].kind == "missing"


def test_a_comparison_reads_back_equal(made):
    assert documents.comparison(made[1]) == made[0]


def test_examples_on_which_all_agree_are_no_examples(made, tmp_path):
    found, folder = made
    alike = {"a": [folder / "runs" / "lora-seed0"], "b": [folder / "runs" / "lora-seed0"]}
    assert disagreement.table(alike, "test", "n") is None
    apart = disagreement.table(Studied.of(found, folder).folders(tables_of(found)), "test", "n")
    shares = [[re.search(r"(\d+)%", one.text)[1] for one in row[2:]] for row in apart.rows]
    gaps = [abs(int(one) - int(other)) for one, other in shares]
    assert gaps == sorted(gaps, reverse=True)
    assert min(gaps) > 0


def tables_of(found):
    from graftlab.report import study_tables

    return study_tables.groups(found)[0]


def test_the_front_is_what_nothing_else_beats():
    points = [(1, 0.5), (2, 0.4), (2, 0.7), (3, 0.7), (4, 0.9)]
    assert study_charts.front(points, True) == [(1, 0.5), (2, 0.7), (4, 0.9)]
    assert study_charts.front(points, False) == [(1, 0.5), (2, 0.4)]


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.001, 1, True, [0.001, 0.01, 0.1, 1]),
        (3, 4, True, [3, 3.2, 3.4, 3.6, 3.8, 4]),
        (1.4e-5, 5.5e-3, True, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3]),
        (0.015, 0.3, True, [0.02, 0.05, 0.1, 0.2]),
    ],
)
def test_ticks_are_round_numbers_within_the_ends(low, high, log, expected):
    assert chart.ticks(low, high, log) == pytest.approx(expected)


@pytest.mark.parametrize("log", [True, False])
def test_a_field_stands_on_a_log_axis_where_the_space_says_so(log, tmp_path):
    given = {"float": [0.01, 0.3], **({"log": True} if log else {})}
    search = {"name": "found", "space": {"method.dropout": given}, "base": {}}
    summary = {
        "objectives": [{"name": "accuracy", "higher": True}], "best": None, "default": None,
        "edges": {}, "expected_best": [], "causes": {},
    }  # fmt: skip
    (tmp_path / "search.json").write_text(json.dumps(search))
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "trials.csv").write_text(
        "trial,state,method.dropout,accuracy,seconds,run,cause\n"
        "0,complete,0.015,0.5,1,,\n1,complete,0.29,0.6,1,,\n"
    )
    text = page.render(search_page.of(tmp_path))
    assert (">0.02</text>" in text) is log
    assert (">0.3</text>" in text) is not log


def test_ticks_of_a_log_axis_are_never_so_many_that_their_numbers_meet():
    spans = (10 ** (tenths / 10) for tenths in range(10, 120))
    assert {
        len(chart.ticks(low, low * span, log=True)) for span in spans for low in (1e-7, 3e-5)
    } <= {2, 3, 4, 5}


def test_a_chart_has_a_gap_where_nothing_is_known_and_leaves_out_what_no_logarithm_has():
    points = [(1.0, 1.0), (2.0, None), (3.0, 2.0), (4.0, 3.0)]
    drawn = chart.chart([Series("a", points)], Axis("x"), Axis("y"), "t")
    assert drawn.count("<circle") == 3
    line = re.search(r'class="line s0" d="([^"]*)"', drawn)[1]
    assert line.count("M") == 1  # a single point is no line
    assert (
        chart.chart([Series("a", [(0.0, 1.0)])], Axis("x", log=True), Axis("y"), "t").count("<svg")
        == 0
    )


def test_the_study_file_beside_a_page_asks_for_the_same_runs(tmp_path, made):
    plan, _ = made_studies.make(tmp_path, METHODS, 2, SKILL)
    again = tmp_path / "again.yaml"
    again.write_text(whole_file.text(plan), encoding="utf-8")
    assert [run.file.resolved for run in study.read(again).runs] == [
        run.file.resolved for run in plan.runs
    ]
    assert "extends" not in config.read(again).values["base"]


def test_the_command_writes_the_page_or_prints_tables(made, tmp_path):
    page = tmp_path / "page.html"
    assert json.loads(invoke(made[1], "--out", page, "--json").output)["report"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert invoke(made[1], "--format", "csv").output == report.as_text(made[1], "csv")
    assert invoke(made[1], "--format", "card", "--inputs").exit_code == 2


def test_serve_shows_the_report_of_a_study_and_of_a_run_under_the_pages_own_policy(made):
    own = server.app(made[1].parent, TOKEN, PORT)
    for at in ("made", "made/runs/lora-seed0"):
        status, headers, text = ask(own, f"/report?at={at}")
        assert status == 200
        assert headers["content-security-policy"].startswith(report.policy())
        assert text == report.html(made[1].parent / at, {})
    assert ask(own, "/report?at=made/runs")[0] == 404


@pytest.mark.slow
def test_a_thousand_runs_stay_below_five_megabytes(tmp_path):
    methods = [{"name": "lora", "rank": rank} for rank in range(1, 21)]
    found = made_studies.compared(tmp_path, methods, 50)
    report.write(found, tmp_path / "made", {})
    assert (tmp_path / "made" / "comparison.html").stat().st_size < 5_000_000
