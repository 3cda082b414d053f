"""What is exported needs no graftlab, and does the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import fault
from finished_runs import finish, make_bert

from graftlab import inference
from graftlab.errors import ConfigError, DiskError, GraftlabError
from graftlab.release import export
from graftlab.runs import prediction

EXPORTED = {
    "lora": {"name": "lora"},
    "pissa": {"name": "pissa"},
    "adalora": {"name": "adalora"},
    "rslora": {"name": "lora", "rslora": True, "init": "olora", "rank": 4},
}
# Plain peft on texts in the order of the file, in the batches that are given: no graftlab anywhere.
PLAIN = """
import json, sys, torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

result = {}
for folder, batches in json.load(sys.stdin).items():
    source = PeftConfig.from_pretrained(folder).base_model_name_or_path
    base = AutoModelForSequenceClassification.from_pretrained(source, num_labels=3)
    model = PeftModel.from_pretrained(base, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    result[folder] = []
    for texts in batches:
        with torch.no_grad():
            logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        result[folder] += logits.softmax(-1).tolist()
assert not [name for name in sys.modules if name.startswith("graftlab")]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def runs(folder):
    return {
        name: finish(folder, method, name=name, training={"batch_size": 12})
        for name, method in EXPORTED.items()
    }


@pytest.fixture(scope="module")
def plain(runs, folder):
    """Return by name what plain peft makes of the exported adapter on the run's test texts."""
    lines = (folder / "data" / "test.csv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [line.rpartition(",")[0] for line in lines]
    batch = sorted(
        texts, key=lambda text: -len(text)
    )  # as evaluation orders them: one byte, one token
    outs = {name: folder / "out" / name for name in runs}
    for name, run in runs.items():
        export.lora(run.path, outs[name])
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN],
        input=json.dumps({str(out): [batch] for out in outs.values()}),
        env={**environment, "HF_HUB_OFFLINE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    order = [batch.index(text) for text in texts]
    return {name: [result[str(out)][i] for i in order] for name, out in outs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_plain_peft_without_graftlab_gives_the_runs_predictions(runs, plain, name):
    trained = [row["probabilities"] for row in prediction.read(runs[name].predictions("test"))]
    if name == "lora":
        assert plain[name] == trained
    for actual, expected in zip(plain[name], trained, strict=True):
        assert actual == pytest.approx(expected, abs=1e-5)


def test_the_config_names_the_backbone_where_it_is(runs, folder, tmp_path):
    config = export.lora(runs["lora"].path, tmp_path / "out")
    assert config["base_model_name_or_path"] == str(folder / "bert")
    assert config == json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"


def test_a_folder_given_relatively_is_named_absolutely(tmp_path, monkeypatch):
    make_bert(tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    run = finish(tmp_path, {"name": "lora"}, backbone={"model": "bert"})
    saved = json.loads((run.adapter / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(tmp_path / "bert")
    monkeypatch.chdir(tmp_path.parent)
    assert inference.load(run.path).predict(["fine"])


@pytest.mark.quick("dora", "head")
@pytest.mark.parametrize("name", ["full", "head", "bitfit", "dora", "prefix", "prompt"])
def test_what_is_no_lora_is_refused_with_the_reason(folder, tmp_path, name):
    run = finish(folder, {"name": name})
    with pytest.raises(ConfigError, check=fault("no_lora_form")):
        export.lora(run.path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(runs, tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ConfigError, check=fault("taken")):
        export.lora(runs["lora"].path, tmp_path)
    with pytest.raises(ConfigError, check=fault("taken")):
        export.lora(runs["lora"].path, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "keep"


def test_the_same_run_exports_the_same_bytes_also_into_an_empty_folder(runs, tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a", "b"):
        export.lora(runs["pissa"].path, tmp_path / name)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("a", "b")
    )
    assert first == second
    assert sorted(first) == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_folder_that_cannot_be_written_is_an_error_of_the_disk(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, check=fault("unwritable")):
        export.lora(runs["lora"].path, tmp_path / "file" / "out")


def test_an_unfinished_run_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(GraftlabError, check=fault("not_finished")):
        export.lora(tmp_path, Path(tmp_path) / "out")
