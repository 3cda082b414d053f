"""The example of JELLY in transformers' Trainer runs as it stands."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from graftlab.methods.jelly.tuner import layers
from graftlab.testing import examples

EXAMPLE = Path(__file__).parents[3] / "examples" / "jelly_with_trainer.py"


def run(model: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), model])
    return runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_it_is_under_forty_lines():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 40


def test_it_switches_and_leaves_an_adapter_that_peft_opens(tmp_path, monkeypatch):
    name = examples.text_model(tmp_path / "model", "encoder")
    found = run(name, monkeypatch, tmp_path)
    facts, trained = found["callback"].facts, found["model"].eval()
    assert facts["switched"]
    assert facts["switch_step"] <= 20  # two thirds of its steps at the latest
    assert facts["probe_loss_after"] == pytest.approx(facts["probe_loss_before"], rel=1e-4)
    base = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
    loaded = PeftModel.from_pretrained(base, tmp_path / "jelly" / "adapter").eval()
    assert not any(layer.forms["default"].sequential for layer in layers(loaded).values())
    probe = dict(found["callback"].probe)
    with torch.no_grad():
        assert torch.equal(loaded(**probe).logits, trained(**probe).logits)


@pytest.mark.slow
def test_started_again_it_ends_in_the_same_bytes(tmp_path, monkeypatch):
    name = examples.text_model(tmp_path / "model", "encoder")
    run(name, monkeypatch, tmp_path)
    file = tmp_path / "jelly" / "adapter" / "adapter_model.safetensors"
    whole = file.read_bytes()
    for checkpoint in ("checkpoint-20", "checkpoint-30"):
        (tmp_path / "jelly" / checkpoint).rename(tmp_path / checkpoint)
    first = tmp_path / "jelly" / "checkpoint-10" / "adapter_model.safetensors"
    written = first.stat().st_mtime_ns
    found = run(name, monkeypatch, tmp_path)
    assert first.stat().st_mtime_ns == written, "it began anew"
    assert found["callback"].facts["switched"]
    assert file.read_bytes() == whole
