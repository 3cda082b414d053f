"""Losses that are scaled for float16 train as others do, and where a run computes is left as it was found."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from plain_loops import Halves, Squares, begun, fields, train

from graftlab.errors import ConfigError
from graftlab.training import checkpoint, devices

CONFIG = fields(max_steps=6, save_every=2, clip_norm=0.5, optimizer={"name": "adamw"})


def scaled():
    """Return an accelerator that scales losses, which float16 alone asks for, on the CPU."""
    made = Accelerator(cpu=True)
    made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    return made


def test_losses_that_are_scaled_come_to_the_same_run(tmp_path):
    plain, one = train(tmp_path / "plain", CONFIG, Halves())
    accelerator = scaled()
    loop, two = train(tmp_path / "scaled", CONFIG, Halves(), accelerator=accelerator)
    for ours, theirs in zip(two.read_metrics(), one.read_metrics(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    torch.testing.assert_close(loop.model.state_dict(), plain.model.state_dict())
    assert accelerator.scaler.get_scale() == 2.0**11  # grown once in six steps


def test_the_scale_goes_on_where_it_was(tmp_path):
    _, run = train(tmp_path / "run", CONFIG, accelerator=scaled())
    kept = checkpoint.load(run.checkpoints / checkpoint.name(4))
    other = scaled()
    other.scaler.load_state_dict({**other.scaler.state_dict(), "scale": 3.0})
    with begun(tmp_path / "run", CONFIG, accelerator=other) as loop:
        loop.restore(kept)
        assert other.scaler.state_dict() == kept.state["scaler"]
        assert other.scaler.get_scale() == 2.0**11
    with begun(tmp_path / "plain", CONFIG) as loop:
        loop.restore(kept)  # in another precision there is nothing to scale
        assert loop.position.step == 4


def test_a_step_that_overflows_is_skipped_and_the_scale_halved(tmp_path):
    class Large(Squares):
        def loss(self, model, batch, label_smoothing=0.0):
            return super().loss(model, batch) * 1e37  # times 1,024 it is no float32

    accelerator = scaled()
    with begun(tmp_path / "run", fields(), Large(), accelerator=accelerator) as loop:
        before = loop.model.weight.clone()
        done = loop.stepper.step(1, 0.1)
    assert not done.applied
    assert torch.equal(loop.model.weight, before)
    assert accelerator.scaler.get_scale() == 2.0**9


@pytest.fixture
def showing():
    """Return the messages of warnings that are shown."""
    shown = []

    def show(*what, **where):
        shown.append((str(what[0]), len(what), sorted(where)))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield shown


@pytest.mark.parametrize("before", [False, True])
def test_algorithms_are_deterministic_inside_and_then_as_before(showing, before):
    torch.use_deterministic_algorithms(before)
    torch.backends.cudnn.benchmark = True
    show = warnings.showwarning

    def fail():
        with devices.deterministic(True) as found:
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            assert not torch.backends.cudnn.benchmark
            for text in (
                "scatter is not deterministic. See",
                "another",
                "scatter is not deterministic.",
            ):
                warnings.warn(text, stacklevel=1)
            assert found == ["scatter is not deterministic"]
            raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert torch.are_deterministic_algorithms_enabled() == before
        assert torch.backends.cudnn.benchmark
        assert [text for text, *_ in showing] == ["another"]
        assert warnings.showwarning is show
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False


def test_where_it_is_not_asked_for_nothing_changes(showing):
    with devices.deterministic(False) as found:
        assert not torch.are_deterministic_algorithms_enabled()
        warnings.warn("not deterministic", stacklevel=1)
    assert (found, [text for text, *_ in showing]) == ([], ["not deterministic"])


def test_the_freest_gpu_is_chosen_where_no_launcher_has_done_so(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((5, 9, 7)[index], 10))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU of old")
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError, match="a GPU of old"):
        devices.accelerator("bf16")
    assert chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError):
        devices.accelerator("bf16")
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError):
        devices.accelerator("bf16")
    assert chosen == [1]


@pytest.mark.parametrize("keep", [True, False])
def test_each_run_has_its_own_precision(keep):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for precision, mixed in (("bf16", "bf16"), ("fp32", "no")):
        made = devices.accelerator(precision, keep)
        assert (made.mixed_precision, made.device.type) == (mixed, "cpu")
        with made.autocast():
            assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
            assert torch.is_autocast_cache_enabled() == (keep or precision == "fp32")
    with pytest.raises(ConfigError, match="fp16"):
        devices.accelerator("fp16")


def test_peak_memory_is_what_the_system_counts_in_bytes(monkeypatch):
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    counted = int(line.split()[1]) * 1024
    found = devices.peak_memory(torch.device("cpu"))
    assert found == pytest.approx(counted, rel=0.02)
    monkeypatch.setattr(sys, "platform", "darwin")  # where it is counted in bytes
    assert devices.peak_memory(torch.device("cpu")) == pytest.approx(counted / 1024, rel=0.02)
