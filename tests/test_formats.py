"""Formats that a processor has no instructions for are said before a run takes forty times as long."""

import json

import pytest
import torch

from graftlab import config, runfile
from graftlab.runfile import checks
from graftlab.weights import formats

OLD_CPU, NEW_CPU = "flags : fpu avx2 f16c", "flags : fpu avx2 amx_bf16 avx512_fp16"


@pytest.mark.parametrize(
    ("backbone", "precision", "keys"),
    [
        ({}, "fp32", []),
        ({}, "bf16", ["training.precision"]),
        ({"dtype": "bfloat16"}, "fp32", ["backbone.dtype"]),
        ({"dtype": "float16"}, "fp32", ["backbone.dtype"]),
        ({"quantization": {"bits": 4}}, "fp32", ["backbone.quantization.compute_dtype"]),
        ({"quantization": {"bits": 8}}, "fp32", []),
    ],
)
def test_a_format_without_instructions_on_this_processor_is_said(
    monkeypatch, tmp_path, backbone, precision, keys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(formats, "CPU", tmp_path / "cpuinfo")
    given = [f"backbone.{key}={json.dumps(value)}" for key, value in backbone.items()]
    file = runfile.resolve(
        config.read("quickstart/generation", [*given, f"training.precision={precision}"])
    )
    for processor, wanted in ((OLD_CPU, keys), (NEW_CPU, [])):
        formats.CPU.write_text(processor)
        assert [note.fields["key"] for note in checks.slow_formats(file)] == wanted


def test_of_a_processor_that_says_nothing_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(formats, "CPU", tmp_path / "none")
    assert not formats.emulated("bfloat16")


def test_a_gpu_has_both_formats(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(formats, "CPU", tmp_path / "cpuinfo")
    formats.CPU.write_text(OLD_CPU)
    assert not formats.emulated("bfloat16")
    assert not formats.emulated("float16")
