"""What a run has forgotten: beside its base, on something that it was not trained on."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from faults import conflict, fault
from finished_runs import LABELS, finish
from made_studies import make
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner
from written_runs import finish_writer

from graftlab import cli, config, inference, study
from graftlab.errors import CheckpointError, ConfigError, DataError
from graftlab.inference import forgetting as measuring
from graftlab.report import answer, documents, study_costs
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs import forgetting
from graftlab.study import tables, whole_file

TEXTS = ["A heron stood in the reeds.", "Melt the butter.", "It rained.", "The court adjourned."]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a BERT, its data, texts and a cache of its own."""
    folder = tmp_path_factory.mktemp("forgetting")
    (folder / "held.txt").write_text("\n".join(TEXTS) + "\n")
    return folder


@pytest.fixture(scope="module")
def classifier(made):
    return finish(made, {"name": "lora"}, paths={"cache": str(made / "cache")})


@pytest.fixture(scope="module")
def writer(made):
    return finish_writer(made, "writer")


def held(made):
    return forgetting.of_texts(made / "held.txt")


def second(made, labels=LABELS):
    """Return a task that the runs were not trained on, of two classes that are easily told apart."""
    rows = [
        {"text": f"aa bb {n}" if n % 2 else f"x {n}", "label": ("odd", "even")[n % 2]}
        for n in range(24)
    ]
    for split, part in (("train", rows[:14]), ("test", rows[14:])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (made / f"second-{split}.jsonl").write_text(text)
    section = {
        "kind": "classification",
        "overlap": "refuse",
        "files": {split: f"second-{split}.jsonl" for split in ("train", "test")},
        "validation_last": 2,
    }
    document = config.given({"forgetting": {"task": section}})
    return forgetting.asked(forgetting.Config(task=section), document)


def untrained(run, folder):
    """Return a copy of a run whose adapter is as LoRA begins: B is zero."""
    shutil.copytree(run.path, folder)
    for name in ("manifest.json", "adapter/manifest.json"):
        (folder / name).unlink()
    weights = load_file(folder / "adapter/adapter_model.safetensors")
    zero = {k: v * 0 if "lora_B" in k else v for k, v in weights.items()}
    save_file(zero, folder / "adapter/adapter_model.safetensors", metadata={"format": "pt"})
    return folder


# Language models


@pytest.mark.slow
def test_the_loss_is_what_transformers_computes_on_the_same_tokens(made, writer):
    found = measuring.measure(writer.path, held(made))
    adapted = inference.load(writer.path)
    end = adapted.backbone.processor.eos_token_id
    sums, count = {"base": 0.0, "adapted": 0.0}, 0
    for text in TEXTS:
        ids = torch.tensor([[*adapted.backbone.processor(text)["input_ids"], end]])
        count += ids.shape[1] - 1
        with torch.no_grad():
            for name in sums:
                how = (
                    adapted.file.method.module.off(adapted.model)
                    if name == "base"
                    else torch.no_grad()
                )
                with how:
                    loss = adapted.model(input_ids=ids, labels=ids).loss
                sums[name] += loss.item() * (ids.shape[1] - 1)
    assert found["measure"] == "loss"
    for name, total in sums.items():
        assert found[name] == pytest.approx(total / count, rel=1e-5)
    assert found["forgotten"] == pytest.approx((sums["adapted"] - sums["base"]) / count, rel=1e-3)


@pytest.mark.slow
def test_an_adapter_that_has_not_trained_forgets_nothing_at_all(made, writer, classifier, tmp_path):
    text = measuring.measure(untrained(writer, tmp_path / "writer"), held(made))
    classes = measuring.measure(
        untrained(classifier, tmp_path / "classes"), forgetting.Asked("general")
    )
    assert (text["forgotten"], {*text["units"]}) == (0.0, {0.0})
    assert (classes["forgotten"], {*classes["units"]}) == (0.0, {0.0})


@pytest.mark.slow
def test_the_base_is_asked_once_and_a_record_stays_until_the_texts_change(made, writer, tmp_path):
    (tmp_path / "held.txt").write_text("One.\nTwo words.\n")
    asked = forgetting.of_texts(tmp_path / "held.txt")
    cache = Path(config.Paths().cache) / "forgetting"
    first = measuring.measure(writer.path, asked)
    kept = forgetting.path(writer, "held")
    written, bases = kept.stat().st_mtime_ns, {p.name for p in cache.iterdir()}
    assert f"{first['key']}.jsonl" in bases
    assert measuring.measure(writer.path, asked) == first
    assert kept.stat().st_mtime_ns == written
    (tmp_path / "held.txt").write_text("One.\nTwo other words.\n")
    assert measuring.measure(writer.path, asked)["key"] != first["key"]
    Run(writer.path).check()  # the manifest knows the record as it is now
    kept.write_text("{")
    with pytest.raises(CheckpointError):
        measuring.measure(writer.path, asked)
    kept.unlink()


# Others, by a probe


@pytest.mark.slow
def test_the_probe_is_scikit_learns_on_the_mean_of_the_last_hidden_states(
    made, classifier, monkeypatch
):
    monkeypatch.chdir(made)
    found = measuring.measure(classifier.path, second(made))
    bert = transformers.BertModel.from_pretrained(made / "bert").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(made / "bert")

    def features(rows):
        with torch.no_grad():
            states = [bert(**tokenizer(row["text"], return_tensors="pt")) for row in rows]
        return np.stack([own.last_hidden_state[0].double().mean(0).numpy() for own in states])

    read = lambda split: map(json.loads, Path(f"second-{split}.jsonl").read_text().splitlines())  # noqa: E731
    train, test = [*read("train")][:-2], [*read("test")]
    scale = StandardScaler().fit(features(train))
    probe = LogisticRegression(max_iter=1000)
    probe.fit(scale.transform(features(train)), [row["label"] for row in train])
    expected = probe.score(scale.transform(features(test)), [row["label"] for row in test])
    assert (found["measure"], found["base"]) == ("accuracy", pytest.approx(expected))
    assert found["forgotten"] == pytest.approx(found["base"] - found["adapted"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["head", "prompt", "full", "pifi"])
def test_every_kind_of_method_can_be_asked(made, method):
    more = {"plug": "none", "projections": False, "encoder": "frozen"} if method == "pifi" else {}
    run = finish(made, {"name": method, **more}, paths={"cache": str(made / "cache")})
    found = measuring.measure(run.path, forgetting.Asked("general"))
    assert found["examples"] == 80
    assert np.mean(found["units"]) == pytest.approx(found["base"] - found["adapted"])
    if method in ("head", "pifi"):  # they leave the backbone as it is
        assert found["forgotten"] == 0


@pytest.mark.slow
def test_what_a_model_cannot_be_asked_is_refused_and_of_a_study_said(
    made, classifier, writer, caplog
):
    with pytest.raises(DataError, check=fault("conflict")):
        measuring.measure(classifier.path, held(made))
    found = measuring.measure_all([classifier.path], held(made), quiet=True)
    assert (found.found, [*found.causes], found.bug) == ({}, [classifier.path], None)
    assert "held.txt has texts" in caplog.text


@pytest.mark.slow
def test_the_command_says_both_losses(made, writer):
    said = CliRunner().invoke(
        cli.app, ["evaluate", str(writer.path), "--forgetting", str(made / "held.txt")]
    )
    assert said.exit_code == 0, said.output
    found = forgetting.of_run(writer, "held")
    assert f"base {found['base']:.4f}, adapted {found['adapted']:.4f}" in said.output
    more = CliRunner().invoke(
        cli.app, ["evaluate", str(writer.path), "--forgetting", "general", "--errors", "2"]
    )
    assert more.exit_code == 2


# What a study says of it


def record(run, name, units, key="same"):
    path = forgetting.path(run, name)
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, {
        "name": name, "measure": "loss", "base": 2.0, "adapted": 2.0 + float(np.mean(units)),
        "forgotten": float(np.mean(units)), "examples": len(units), "units": list(units), "key": key,
        "adapter": {},
    })  # fmt: skip


def studied(folder, forgotten):
    """Return a study of digits whose runs have these records: units by method and seed."""
    plan, done = make(folder, ["lora", "head"], seeds=3)
    for run in done:
        if (units := forgotten(run.planned.cell.method, run.planned.seed)) is not None:
            record(Run(run.folder), "general", units)
    return study.compare(plan, done)


def test_a_rows_interval_is_students_over_seeds_where_examples_say_the_same(tmp_path):
    values = [0.5, 0.8, 0.65]
    found = studied(tmp_path, lambda method, seed: [values[seed]] * 6 if method == "lora" else None)
    by = {row.method: row.forgetting for row in found.rows}
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert by["head"] is None
    assert (by["lora"].mean, by["lora"].deviation) == pytest.approx((0.65, np.std(values, ddof=1)))
    assert (by["lora"].low, by["lora"].high) == pytest.approx((low, high))
    said = [line for line in answer.not_measured(found) if line.startswith("Forgetting")]
    assert said == [
        "Forgetting, what the backbone could do before and cannot any more: 1 of 2 rows have none."
    ]


def test_runs_that_were_asked_other_things_have_no_common_figure(tmp_path):
    plan, done = make(tmp_path, ["lora"], seeds=2)
    for run in done:
        record(Run(run.folder), "general", [0.1, 0.2], key=str(run.planned.seed))
    assert study.compare(plan, done).rows[0].forgetting is None


def test_nothing_forgotten_has_no_interval_and_a_column_all_the_same(tmp_path):
    found = studied(tmp_path, lambda *_: [0.0] * 4)
    assert {(row.forgetting.mean, row.forgetting.low) for row in found.rows} == {(0.0, None)}
    flat = [tables._flat(row) for row in found.rows]
    assert {row["forgetting_mean"] for row in flat} == {0.0}


def test_the_page_and_the_tables_have_it(tmp_path):
    plan, done = make(tmp_path, ["lora", "head"], seeds=2)
    for run in done:
        record(Run(run.folder), "general", [0.25 + run.planned.seed, 0.5])
    found = study.compare(plan, done)
    study.write(found, tmp_path / "made")
    page = documents.html(tmp_path / "made", {})
    assert "what is forgotten" in page
    assert "+0.6250" in documents.as_text(tmp_path / "made", "markdown")


def test_the_front_is_what_no_other_beats_in_all_three():
    def row(label, score, trainable, forgotten):
        return SimpleNamespace(
            label=label, higher_is_better=True, trainable=trainable,
            score=SimpleNamespace(mean=score),
            forgetting=None if forgotten is None else SimpleNamespace(mean=forgotten),
        )  # fmt: skip

    rows = [row("best", 0.9, 900, 0.5), row("small", 0.8, 10, 0.5), row("kept", 0.7, 900, 0.0),
            row("beaten", 0.8, 20, 0.5), row("same", 0.8, 10, 0.5), row("none", 0.99, 1, None)]  # fmt: skip
    assert [one.label for one in study_costs.unbeaten(rows)] == ["best", "small", "kept", "same"]
    assert study_costs.unbeaten(rows[:1]) == []


def test_a_bug_while_it_is_measured_is_raised_when_the_tables_stand_with_its_hole(tmp_path):
    task = {"kind": "images", "labels": ["a", "b"]}
    task |= {"source": "numpy:loadtxt", "options": {"fname": "gone"}}  # a function that raises
    make(tmp_path, ["lora", "head"], seeds=1, forgetting={"task": task})
    out = tmp_path / "made"
    words = ["compare", str(tmp_path / "made.yaml"), "--out", str(out), "--allow-code"]
    said = CliRunner().invoke(cli.app, words)
    assert isinstance(said.exception, FileNotFoundError)
    cause = "FileNotFoundError: gone not found."
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    assert [row["forgetting_holes"] for row in rows] == [{"0": cause}] * 2
    assert cause in (out / "comparison.csv").read_text()
    assert cause in documents.html(out, {})


@pytest.mark.parametrize("text", ["{}", "[]", '{"units": [1]}'])
def test_a_record_that_is_none_is_no_figure_and_stops_no_table(tmp_path, text):
    plan, done = make(tmp_path, ["lora"], seeds=1)
    record(Run(done[0].folder), "general", [0.5])
    forgetting.path(Run(done[0].folder), "general").write_text(text)
    assert study.compare(plan, done).rows[0].forgetting is None


# What a file asks for


def test_texts_and_a_task_are_one_or_the_other():
    with pytest.raises(ValidationError, check=conflict("task")):
        forgetting.Config(texts="a.txt", task="trec")
    with pytest.raises(ValidationError, check=conflict("measure")):
        forgetting.Config(measure=False, task="trec")


def test_what_is_asked_is_looked_at_before_the_first_run(tmp_path):
    plan, _ = make(tmp_path, ["lora"], seeds=1)
    path = tmp_path / "made.yaml"
    with pytest.raises(ConfigError, check=fault("missing", "forgetting.texts")):
        study.read(path, ["forgetting.texts=gone.txt"])
    with pytest.raises(DataError):
        study.read(path, ["forgetting.task={kind: classification, data_dir: gone}"])
    assert study.read(path, ["forgetting.measure=false"]).forgetting is None
    assert plan.forgetting == forgetting.Asked("general")


def test_the_study_file_that_needs_no_other_asks_the_same(tmp_path, monkeypatch):
    make(tmp_path, ["lora"], seeds=1)
    (tmp_path / "held.txt").write_text("A text.\n")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "made.yaml"
    plan = study.read(path, ["forgetting.texts=held.txt"])
    (tmp_path / "elsewhere").mkdir()
    again = tmp_path / "elsewhere" / "study.yaml"
    again.write_text(whole_file.text(plan))
    assert study.read(again).forgetting == plan.forgetting


def test_the_texts_that_come_along_are_balanced_and_each_its_own(tmp_path):
    part = forgetting.general()
    data = part.module.read(part.config, config.Paths(), 0)
    labels = [row["label"] for row in data.splits["test"]]
    assert len(labels) == 80
    assert {labels.count(one) for one in {*labels}} == {10}
