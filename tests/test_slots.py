"""The shares of a machine: each run has a GPU under the name that CUDA_VISIBLE_DEVICES gives it."""

import pytest
import torch

from graftlab.workers import shares


@pytest.mark.parametrize(
    ("given", "seen", "expected"),
    [
        (None, 2, ["0", "1", "0"]),
        ("4,5", 2, ["4", "5", "4"]),
        (" GPU-1a, GPU-2b ", 2, ["GPU-1a", "GPU-2b", "GPU-1a"]),
        ("4,-1,5", 1, ["4", "4", "4"]),  # CUDA reads up to the first that it does not know
        ("MIG-1,MIG-2", 1, ["MIG-1", "MIG-2", "MIG-1"]),  # of which a process sees one
        ("", 0, [None, None, None]),
        (None, 0, [None, None, None]),
    ],
)
def test_gpus_are_shared_out_under_the_names_that_the_environment_gives_them(
    monkeypatch, given, seen, expected
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert [slot.gpus for slot in shares(3)] == expected
