"""Metrics with settings: asked for in run files, called by one name, and given the inputs of a row."""

import json
import sys
import types

import jsonschema
import pytest

from graftlab import config, runfile
from graftlab.contracts import Score
from graftlab.errors import ConfigError, Place
from graftlab.runfile import measures
from graftlab.runs import evaluation, session

TEXTS = """
backbone: {kind: tiny}
task:
  kind: generation
  template: question_answer
  files: {train: rows.jsonl}
  metrics: METRICS
method: {name: lora}
training: {max_steps: 1}
"""
OLD = (  # every name that a run file of version 0.1.0 could give
    *("accuracy", "accuracy_and_f1", "binary_f1", "bleu", "code_bleu_ngrams", "code_exact_match"),
    *("exact_match", "gsm8k_accuracy", "macro_f1", "math_accuracy", "math_accuracy_rational"),
    *("matthews", "pass_at_1", "pass_at_10", "pass_at_100", "pearson", "pearson_and_spearman"),
    *("perplexity", "rouge1", "rouge2", "rougeL", "spearman", "squad_v2_exact", "squad_v2_f1"),
    "token_accuracy",
)


@pytest.fixture
def resolved(tmp_path, monkeypatch):
    """Return a function that resolves a run file with these metrics, written as YAML."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(
        json.dumps({"question": f"q{i}", "answer": f"a{i}", "context": "c"}) + "\n"
        for i in range(20)
    )
    (tmp_path / "rows.jsonl").write_text(rows)

    def resolve(metrics, *overrides):
        path = tmp_path / "run.yaml"
        path.write_text(TEXTS.replace("METRICS", metrics))
        return runfile.resolve(config.read(path, overrides))

    return resolve


@pytest.mark.parametrize("name", OLD)
def test_a_name_of_old_is_the_name_still(name):
    assert measures.measure(name).name == name


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("{name: pass_at, k: 10}", "pass_at_10"),
        ("{name: pass_at, k: 5}", "pass_at(k=5)"),
        ("{name: rouge, n: 2}", "rouge2"),
        ("{name: rouge, n: L}", "rougeL"),
        ("{name: rouge}", "rougeL"),
        ("rouge", "rougeL"),
        ("{name: rouge2}", "rouge2"),
        ("{name: rouge2, stemmer: true}", "rouge(n=2,stemmer=true)"),
        ('"rouge(stemmer=true,n=2)"', "rouge(n=2,stemmer=true)"),
        ('"pass_at(k=10)"', "pass_at_10"),
        ("{name: bleu, smooth: none, max_order: 2}", "bleu(max_order=2,smooth=none)"),
        ("{name: bleu, smooth: exp}", "bleu"),
        ("{name: squad_v2, figure: exact}", "squad_v2_exact"),
        ("{name: math_accuracy, numbers: true}", "math_accuracy_rational"),
    ],
)
def test_a_metric_has_one_name_however_it_is_asked_for(resolved, asked, name):
    file = resolved(f"[perplexity, {asked}]")
    assert file.task.config.metrics == ("perplexity", name)
    assert file.resolved["task"]["metrics"] == ["perplexity", name]
    again = runfile.resolve(
        config.given(file.resolved, Place("config.yaml"))
    )  # as a run is gone on with
    assert again.resolved == file.resolved
    assert measures.measure(name).name == name


@pytest.mark.parametrize(
    ("asked", "culprit", "words"),
    [
        ("[perplexity, {name: rouge, stem: true}]", "stem", r"metrics\.1: 'stem'\. .*'stemmer'"),
        ("[{name: pass_at, k: 0}]", "k: 0", r"task\.metrics\.0\.k is 0.*least 1"),
        ('[{name: pass_at, k: "3"}]', "k:", r"task\.metrics\.0\.k is '3'; .*quotes"),
        ("[{name: rouge, n: M}]", "n: M", r"task\.metrics\.0\.n is 'M'; .*'L'"),
        ("[{name: roug}]", "name", r"task\.metrics\.0: .*'roug'.*'rouge'"),
        ("[acuracy]", "acuracy", r"task\.metrics\.0: .*'acuracy'.*'accuracy'"),
        ("[{nam: rouge}]", "{", r"task\.metrics\.0\.name is missing.*'nam'"),
        ("[{name: exact_match, k: 2}]", "k: 2", r"task\.metrics\.0: 'k'.*ignore"),
        ("[{name: perplexity, k: 2}]", "k: 2", r"task\.metrics\.0\.k: .*perplexity"),
        ("['pass_at(k=0)']", "'pass", r"task\.metrics\.0\.k is 0"),
        ("[{name: bleu, smooth_value: 1}]", "smooth_value", r"task\.metrics\.0: smooth_value"),
        ("[3]", "3", r"task\.metrics\.0 is 3"),
        ("rouge", "metrics", r"task\.metrics.*'rouge'"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place_and_what_was_meant(
    resolved, asked, culprit, words
):
    with pytest.raises(ConfigError, match=words) as raised:
        resolved(asked)
    column = f"  metrics: {asked}".index(culprit) + 1
    assert f"run.yaml:7:{column}: " in str(raised.value)


def test_the_best_checkpoint_is_named_by_the_same_name(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + "a,x\nb,y\n" * 20)
    (tmp_path / "run.yaml").write_text(
        "backbone: {kind: tiny}\n"
        f"task: {{kind: classification, files: {{train: {tmp_path}/rows.csv}},\n"
        "  metrics: [{name: f1, average: weighted}, {name: bleu, max_order: 2}]}\n"
        "method: {name: head}\ntraining: {max_steps: 1, best_by: weighted_f1}\n"
    )
    file = runfile.resolve(config.read(tmp_path / "run.yaml"))
    assert file.training.best_by == "weighted_f1"
    assert runfile.resolve(
        config.read(tmp_path / "run.yaml", ["training.best_by=bleu(max_order=2)"])
    )
    with pytest.raises(ConfigError, match=r"best_by: .*'macro_f1'.* weighted_f1"):
        runfile.resolve(config.read(tmp_path / "run.yaml", ["training.best_by=macro_f1"]))


def test_editors_are_told_the_names_and_the_settings(resolved):
    schema = runfile.schema()
    resolved("[perplexity]")

    def accepts(metrics):
        values = {"backbone": {"kind": "tiny"}, "method": {"name": "lora"}}
        values["task"] = {"kind": "generation", "metrics": metrics}
        return jsonschema.Draft202012Validator(schema).is_valid(values)

    assert accepts(["rouge1", "pass_at(k=5)", {"name": "rouge", "n": 3}, {"name": "accuracy"}])
    assert not accepts(["rogue"])
    assert not accepts([{"name": "rouge", "m": 3}])
    assert not accepts([{"name": "pass_at", "k": 0}])


def test_a_mixture_takes_settings_for_each_task_and_for_all(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + "a,x\nb,y\n" * 20)
    files = f"files: {{train: {tmp_path}/rows.csv}}"
    (tmp_path / "run.yaml").write_text(
        "backbone: {kind: tiny}\ntask:\n  kind: mixture\n"
        "  each: {metrics: [{name: f1, average: weighted}]}\n  tasks:\n"
        f"    - {{as: a, kind: classification, {files}}}\n"
        f"    - {{as: b, kind: classification, {files}, metrics: [{{name: f1, average: macro}}]}}\n"
        "method: {name: head}\ntraining: {max_steps: 1, best_by: a/weighted_f1}\n"
    )
    file = runfile.resolve(config.read(tmp_path / "run.yaml"))
    assert [part.config.metrics for part in file.task.parts.values()] == [
        ("weighted_f1",),
        ("macro_f1",),
    ]


# Metrics that read inputs.


class Echo:
    """A metric of classes and texts that looks at what was asked: the share of texts with a `b`."""

    HIGHER_IS_BETTER = True
    READS_INPUTS = True
    seen: list = []  # noqa: RUF012

    @classmethod
    def score(cls, predictions):
        cls.seen += [(row["index"], row["inputs"]) for row in predictions]
        return Score(
            sum("b" in row["inputs"]["text"] for row in predictions) / len(predictions), 0.0, None
        )


@pytest.fixture
def echo(monkeypatch):
    """The registry as it is where a package brings the metric `echo`."""
    from graftlab import registry

    module = types.ModuleType("echo")
    vars(module).update(HIGHER_IS_BETTER=True, READS_INPUTS=True, score=Echo.score, __doc__="Echo.")
    monkeypatch.setitem(sys.modules, "echo", module)
    monkeypatch.setitem(registry._modules("metrics"), "echo", "echo")
    measures.measure.cache_clear()
    Echo.seen.clear()
    yield Echo.seen
    measures.measure.cache_clear()


def test_a_metric_that_reads_inputs_has_those_of_each_row_in_training_and_after_it(tmp_path, echo):
    (tmp_path / "train.csv").write_text("text,label\n" + "a,x\nb,y\nbb,y\ncc,x\n" * 9)
    (tmp_path / "test.csv").write_text("text,label\nabc,x\nd,y\nbe,y\nf,x\n")
    values = {
        "backbone": {"kind": "tiny"},
        "task": {"kind": "classification", "data_dir": str(tmp_path), "metrics": ["echo"],
                 "overlap": "drop"},
        "method": {"name": "head"},
        "training": {"max_steps": 2, "evaluate_every": 1, "batch_size": 4},
    }  # fmt: skip
    file = runfile.resolve(config.given(values, Place("run.yaml")))
    run = session.run(file, tmp_path / "run", options=session.Options(quiet=True))
    scores = run.read_result()["metrics"]
    assert scores["test"]["echo"]["value"] == 0.5
    of_test = [(place, {"text": text, "pair": None}) for place, text in enumerate(
        ("abc", "d", "be", "f"))]  # fmt: skip
    assert echo[-4:] == of_test
    logged = [line["validation/echo"] for line in run.read_metrics() if "validation/echo" in line]
    assert logged == [scores["validation"]["echo"]["value"]] * 2
    assert "inputs" not in json.loads(run.predictions("test").read_text().splitlines()[0])


def test_inputs_of_a_mixture_are_those_of_the_own_task(echo):
    rows = [
        {"index": 7, "task": "a", "label": 0, "prediction": 0, "loss": 1.0},
        {"index": 8, "task": "b", "label": 0, "prediction": 0, "loss": 1.0},
    ]
    asked = {7: {"text": "abc"}, 8: {"text": "d"}}
    found = evaluation.score(rows, ("a/echo", "b/echo"), asked.__getitem__)
    assert [score.value for score in found.values()] == [1.0, 0.0]
    assert echo == [(7, asked[7]), (8, asked[8])]
