"""The demo: a backbone made on the spot, frozen, and adapted by several methods.

Slow: it trains all that the demo trains.
"""

from pathlib import Path

import pytest

from graftlab import demo, study
from graftlab.rundir.run import Run

SMALL = """
base:
  backbone: {kind: tiny, modality: images, width: 8, layers: 1}
  task: {name: digits, options: {digits: [0, 1]}, labels: ["0", "1"], max_train_samples: 40}
  method: {name: full}
  training: {max_steps: 2, batch_size: 8}
"""
STUDY = """
base:
  backbone: {model: demo/backbone}
  task: {name: digits, options: {digits: [5, 6]}, labels: ["5", "6"], max_train_samples: 40}
  training: {max_steps: 2, batch_size: 8}
methods: [head, lora]
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The demo with smaller studies."""
    for name, text in (("PRETRAINING", SMALL), ("DIGITS", STUDY)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(demo, name, str(path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "it's here"


@pytest.mark.slow
def test_the_backbone_is_the_pretrained_one_without_its_head_and_a_second_call_does_nothing(small):
    from safetensors.numpy import load_file

    ((out, found),) = demo.carry_out(small, quiet=True)
    assert [row.method for row in found.rows] == ["head", "lora"]
    assert found.holes == []
    kept = load_file(small / "backbone/model.safetensors")
    trained = load_file(small / "pretraining/runs/full-seed0/adapter/model.safetensors")
    assert {*trained} - {*kept} == {"classifier.weight", "classifier.bias"}
    assert all((kept[name] == trained[name]).all() for name in kept)
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*.json")}
    ((_, again),) = demo.carry_out(small, quiet=True)
    assert again == found
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*.json")} == before
    assert Run(out / "runs/lora-seed0").finished


def test_five_methods_or_more_and_two_seeds_with_other_digits_than_the_backbone_knows():
    (before,) = study.read(demo.PRETRAINING).runs
    after = study.read(demo.DIGITS, ["base.backbone.model=vit"]).runs
    assert len({run.cell.method for run in after}) >= 5
    assert {run.seed for run in after} == {0, 1}
    known = set(before.file.task.config.options["digits"])
    assert not any(known & set(run.file.task.config.options["digits"]) for run in after)


@pytest.mark.slow
def test_adapters_beat_the_head_alone_by_far(tmp_path, monkeypatch):
    """By more than twice the standard error of a run's accuracy."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ((_, found),) = demo.carry_out(Path(tmp_path), quiet=True)
    rows = {row.method: row.test for row in found.rows}
    for method in ("lora", "dora", "pissa", "full"):
        assert rows[method].mean > rows["head"].mean + 2 * rows["head"].standard_error, method
