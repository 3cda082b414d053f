"""A merged folder needs no graftlab, does what the run does, and says so; one wrong weight is found."""

import json
import os
import subprocess
import sys

import pytest
import torch
from faults import fault
from finished_runs import finish
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoTokenizer,
)
from typer.testing import CliRunner

from graftlab import cli, inference
from graftlab.errors import ConfigError, ModelError
from graftlab.release import export, merge
from graftlab.runs import prediction
from graftlab.testing import examples

METHODS = {
    "lora": {"name": "lora"},
    "olora": {"name": "lora", "init": "olora", "rank": 4},
    "dora": {"name": "dora"},
    "pissa": {"name": "pissa"},
    "adalora": {"name": "adalora"},
    "jelly": {"name": "jelly"},
    "bitfit": {"name": "bitfit"},
    "full": {"name": "full"},
    "head": {"name": "head"},
}
# transformers alone, on texts in the order of the file, in one batch
PLAIN = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

asked, result = json.load(sys.stdin), {}
for folder in asked["folders"]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**tokenizer(asked["texts"], padding=True, return_tensors="pt")).logits
    result[folder] = [logits.softmax(-1).tolist(), model.config.id2label]
assert not [name for name in sys.modules if name.partition(".")[0] in ("graftlab", "peft")]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("merging")


class Made(dict):
    """What is made by its name when it is first asked for."""

    def __init__(self, make):
        self.make = make

    def __missing__(self, name):
        return self.setdefault(name, self.make(name))


@pytest.fixture(scope="module")
def runs(folder):
    return Made(lambda name: finish(folder, METHODS[name], name=name))


@pytest.fixture(scope="module")
def merged(runs, folder):
    """Return the certificate of each run's merged folder."""
    return Made(lambda name: merge.merge(runs[name].path, folder / "out" / name))


@pytest.fixture(scope="module")
def llama(folder):
    return examples.text_model(folder / "llama", "decoder")


@pytest.mark.quick("lora")
@pytest.mark.parametrize("name", METHODS)
def test_the_certificate_says_that_nothing_has_changed(merged, folder, name):
    found = merged[name]
    assert found["passed"]
    assert found["compared"]["logits"]["largest"] < 1e-4
    assert found["compared"]["kl"] < 1e-8
    assert found["compared"]["worst_layer"]["difference"] < 1e-4
    assert found["compared"]["scores"]["accuracy"]["before"] is not None
    assert found["weights"]["off"] == 0
    saved = load_file(folder / "out" / name / "model.safetensors")
    assert found["weights"]["tensors"] == len(saved)
    assert found["weights"]["left_out"] == 0


@pytest.mark.slow
def test_transformers_alone_gives_the_runs_predictions(runs, merged, folder):
    lines = (folder / "data" / "test.csv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [line.rpartition(",")[0] for line in lines]
    folders = {name: str(folder / "out" / name) for name in METHODS if merged[name]}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN],
        input=json.dumps({"folders": list(folders.values()), "texts": texts}),
        env={**environment, "HF_HUB_OFFLINE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for name, path in folders.items():
        found, labels = result[path]
        rows = prediction.read(runs[name].predictions("test"))
        expected = torch.tensor([row["probabilities"] for row in rows])
        torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-5)
        assert list(labels.values()) == ["bad", "good", "naïve"]


def change(folder, name, amount):
    """Add `amount` to one weight of a merged folder."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[name].view(-1)[5] += amount
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.quick("classifier.bias-lora")
@pytest.mark.parametrize("name", ["lora", "full", "pissa"])
@pytest.mark.parametrize(
    "weight",
    [
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.embeddings.word_embeddings.weight",
        "classifier.bias",
    ],
)
def test_one_weight_changed_by_a_thousandth_fails_and_is_named(runs, name, weight, tmp_path):
    merge.merge(runs[name].path, tmp_path / "out")
    if weight == "classifier.bias":
        path = tmp_path / "out" / "model.safetensors"
        tensors = load_file(path)
        tensors[weight][1] += 1e-3
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        change(tmp_path / "out", weight, 1e-3)
    found = merge.certify(runs[name].path, tmp_path / "out")
    assert not found["passed"]
    assert found["weights"]["off"] == 1
    assert found["weights"]["worst"]["name"] == weight
    assert found["weights"]["worst"]["difference"] == pytest.approx(1e-3, rel=0.01)


def test_the_same_weights_in_another_architecture_fail_by_their_logits(runs, tmp_path):
    merge.merge(runs["lora"].path, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_norm_eps": 0.1}))
    found = merge.certify(runs["lora"].path, tmp_path / "out")
    assert found["weights"]["off"] == 0
    assert found["problems"][0]["kind"] == "logits_differ"


def test_the_command_fails_on_a_folder_that_has_changed(runs, tmp_path):
    out = tmp_path / "out"
    arguments = ["merge", str(runs["lora"].path), "--out", str(out)]
    made = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["passed"]
    assert CliRunner().invoke(cli.app, [*arguments, "--check"]).exit_code == 0
    change(out, "classifier.weight", 1e-3)
    checked = CliRunner().invoke(cli.app, [*arguments, "--check"])
    assert checked.exit_code == ModelError.exit_code
    assert "classifier.weight" in checked.stderr


def test_a_merge_that_went_wrong_stays_beside_and_is_said(runs, tmp_path, monkeypatch):
    real = merge.outputs.sample

    def spoil(adapted, rows):
        """Let the adapter be another one after the reference was loaded."""
        found = real(adapted, rows)
        next(p for n, p in adapted.model.named_parameters() if "lora_B" in n).data.add_(0.1)
        return found

    monkeypatch.setattr(merge.outputs, "sample", spoil)
    (tmp_path / "out.failed").mkdir()
    with pytest.raises(ModelError, check=fault("not_equal")):
        merge.merge(runs["lora"].path, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.failed", "out.failed-2"]
    certificate = json.loads((tmp_path / "out.failed-2" / "merge.json").read_text())
    assert certificate["passed"] is False
    assert certificate["compared"]["worst_layer"]["difference"] > 1e-3


@pytest.mark.quick("bfloat16")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_number_format_is_certified_by_its_rounding(runs, tmp_path, dtype):
    found = merge.merge(runs["lora"].path, tmp_path / "out", dtype=dtype)
    assert found["passed"]
    assert {str(t.dtype) for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        f"torch.{dtype}"
    }
    assert 1e-6 < found["compared"]["logits"]["largest"] < 0.05


def test_where_the_data_are_gone_made_up_inputs_are_compared(folder, runs, tmp_path):
    run = runs["lora"]
    (folder / "data").rename(folder / "away")
    try:
        found = merge.merge(run.path, tmp_path / "out", rows=5)
    finally:
        (folder / "away").rename(folder / "data")
    assert found["passed"]
    assert found["sample"].items() >= {"what": "made-up inputs", "rows": 5}.items()
    assert [note["kind"] for note in found["sample"]["notes"]] == ["inputs_made_up"]
    assert found["compared"]["logits"]["outputs"] == 5


@pytest.mark.quick("prefix")
@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_what_is_no_change_of_weights_is_refused_with_the_reason(folder, tmp_path, name):
    run = finish(folder, {"name": name})
    with pytest.raises(ConfigError, check=fault("not_mergeable")):
        merge.merge(run.path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_merge_into_another_backbone_is_refused_by_its_hash(folder, runs, tmp_path):
    path = folder / "bert" / "model.safetensors"
    before = path.read_bytes()
    path.write_bytes(before[:-4] + b"\0\0\0\1")
    try:
        with pytest.raises(ModelError, check=fault("other_weights")):
            merge.merge(runs["lora"].path, tmp_path / "out")
    finally:
        path.write_bytes(before)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(runs, tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ConfigError, check=fault("taken")):
        merge.merge(runs["lora"].path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "quantization"),
    [
        ({"name": "lora"}, {"bits": 4}),
        ({"name": "jelly", "mode": "sequential"}, {"bits": 4, "compute_dtype": "float32"}),
        ({"name": "adalora"}, {"bits": 8}),
    ],
    ids=["lora-4", "jelly-4", "adalora-8"],
)
def test_few_bits_are_merged_into_what_they_are_read_as_and_the_cost_is_said(
    folder, llama, tmp_path, method, quantization
):
    pytest.importorskip("bitsandbytes")
    backbone = {"model": llama, "quantization": quantization}
    name = f"{method['name']}-{quantization['bits']}"
    run = finish(folder, method, name=name, backbone=backbone)
    found = merge.merge(run.path, tmp_path / "out", dtype="float32")
    assert found["passed"]
    assert found["weights"]["off"] == found["weights"]["left_out"] == 0
    assert found["compared"]["logits"]["largest"] < 1e-4
    cost = found["quantized"]["logits"]["largest"]
    assert cost < 0.1
    assert (cost < 1e-4) == (quantization.get("compute_dtype") == "float32")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert (
        f"What leaving {quantization['bits']} bits has cost"
        in (tmp_path / "out" / "README.md").read_text()
    )


def test_a_4_bit_run_is_merged_into_what_it_computes_in_unless_told_otherwise(folder, llama):
    pytest.importorskip("bitsandbytes")
    run = finish(
        folder,
        {"name": "lora"},
        name="own-4",
        backbone={"model": llama, "quantization": {"bits": 4}},
    )
    assert merge.own_dtype(inference.load(run.path)) == "bfloat16"


CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"


def finish_writing(folder, method, backbone):
    """Carry out a run of a task that writes, with a chat template of its own."""
    (folder / "chat.jinja").write_text(CHAT)
    files = {}
    for split in ("train", "validation", "test"):
        rows = ({"question": f"{split} what is {i}", "answer": f"it is {i}"} for i in range(12))
        files[split] = str(folder / f"{split}.jsonl")
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "kind": "generation",
        "files": files,
        "prompt": "{question}?",
        "completion": " {answer}",
        "chat_template": True,
        "chat_template_file": str(folder / "chat.jinja"),
        "max_length": 48,
        "metrics": ["token_accuracy", "perplexity"],
    }
    return finish(folder, method, name="writes", backbone=backbone, task=task)


@pytest.mark.slow
def test_a_run_that_writes_is_merged_with_the_template_it_was_trained_with(llama, tmp_path):
    backbone = {"model": llama, "quantization": {"bits": 4}}
    run = finish_writing(tmp_path, {"name": "lora"}, backbone)
    found = merge.merge(run.path, tmp_path / "out", dtype="float32", rows=6)
    assert found["passed"]
    scores = found["compared"]["scores"]
    assert scores["perplexity"]["after"] == pytest.approx(scores["perplexity"]["before"], rel=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == CHAT
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    ids = tokenizer(["test what is 3?"], return_tensors="pt")
    with torch.no_grad():
        expected = merge.unquantized(inference.load(run.path))(**ids).logits
        torch.testing.assert_close(model(**ids).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.quick("full")
@pytest.mark.parametrize("method", ["lora", "full"])
def test_embeddings_that_are_the_language_head_too_stay_one(llama, tmp_path, method):
    plain = AutoModelForCausalLM.from_pretrained(llama)
    plain.config.tie_word_embeddings = True
    plain.tie_weights()
    plain.save_pretrained(tmp_path / "tied")
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path / "tied")
    run = finish_writing(tmp_path, {"name": method}, {"model": str(tmp_path / "tied")})
    assert merge.merge(run.path, tmp_path / "out")["passed"]
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    moved = not torch.equal(model.lm_head.weight, plain.lm_head.weight)
    assert moved == (method == "full")


@pytest.mark.slow
def test_images_are_merged_with_their_processor(tmp_path):
    for split in ("train", "validation", "test"):
        for index, name in enumerate(("dark", "light") * 4):
            place = tmp_path / "pictures" / split / name
            place.mkdir(parents=True, exist_ok=True)
            shade = (len(split) + index + 200 * (name == "light"),) * 3
            Image.new("RGB", (8, 8), shade).save(place / f"{index}.png")
    changes = {
        "backbone": {"kind": "tiny", "modality": "images", "model": "tiny"},
        "task": {"kind": "images", "files": None, "data_dir": str(tmp_path / "pictures")},
    }
    run = finish(tmp_path, {"name": "dora"}, **changes)
    found = merge.merge(run.path, tmp_path / "out")
    assert found["passed"]
    assert found["compared"]["logits"]["outputs"] == found["sample"]["rows"]
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "dark", 1: "light"}
    files = sorted((tmp_path / "pictures" / "test").glob("*/*.png"))
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    pictures = processor([Image.open(file) for file in files], return_tensors="pt")
    with torch.no_grad():
        shares = model(**pictures).logits.softmax(-1).tolist()
    answers = inference.load(run.path).predict(tmp_path / "pictures" / "test")
    for share, answer in zip(shares, answers, strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(share, abs=1e-5)


def test_an_audit_says_what_takes_the_room(runs, tmp_path):
    found = export.audit(runs["lora"].path)
    assert {row["name"] for row in found["groups"]} == {"adapter", "head and others"}
    assert sum(row["share"] for row in found["groups"]) == pytest.approx(1)
    saved = load_file(runs["lora"].adapter / "adapter_model.safetensors")
    assert sum(row["bytes"] for row in found["groups"]) == sum(t.nbytes for t in saved.values())
    assert found["notes"] == []
    saved["base_model.model.bert.embeddings.word_embeddings.weight"] = torch.zeros(261, 16)
    saved["base_model.model.x.base_layer.weight"] = torch.zeros(3, dtype=torch.float64)
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file(saved, tmp_path / "adapter_model.safetensors")
    notes = {note["kind"]: note["bytes"] for note in export.audit(tmp_path)["notes"]}
    assert notes == {"embeddings_kept": 16_704, "backbone_kept": 24, "float64_kept": 24}
    shown = CliRunner().invoke(cli.app, ["export", str(tmp_path), "--audit"])
    assert shown.exit_code == 0
    assert "warning: adapter_model.safetensors holds" in shown.stdout
    assert CliRunner().invoke(cli.app, ["export", str(tmp_path)]).exit_code == 2
