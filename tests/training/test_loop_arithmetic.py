"""What a run computes, held against plain torch: loss, norm and weights of each step, from the one before.

One run keeps every step: 40 examples a batch in micro-batches of 12, 12, 12 and 4, a clip that binds, rates
of their own for B (LoRA+) and for the head, weight decay, a warm-up. Without dropout a step is then a
function of the checkpoint before it, and thirty lines of torch say what must come out.
"""

import json
import os
from pathlib import Path

import pytest
import tiny_runs
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import get_linear_schedule_with_warmup

from graftlab.contracts import Attached, Hook, Setting
from graftlab.rundir.lines import Lines
from graftlab.rundir.run import Run
from graftlab.runs import session
from graftlab.seeds import mix
from graftlab.training import checkpoint
from graftlab.training.config import Config
from graftlab.training.loop import Loop, Parts
from graftlab.training.signals import Signals
from graftlab.weights import surgery

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny-lora.jsonl"
STEPS, ROWS, WARMUP = 5, 40, 2
RATE, HEAD_RATE, PLUS, CLIP, DECAY = 0.02, 0.005, 4.0, 0.25, 0.1
SMOOTHING = 0.2
CHANGES = {
    "backbone": {"dropout": 0.0},
    "method": {"name": "lora", "dropout": 0.0, "lora_plus_ratio": PLUS},
    "training": {
        "max_steps": STEPS, "batch_size": ROWS, "micro_batch_size": 12, "learning_rate": RATE,
        "head_learning_rate": HEAD_RATE, "clip_norm": CLIP, "save_every": 1, "evaluate_every": 1,
        "keep_checkpoints": STEPS + 1, "label_smoothing": SMOOTHING, "best_by": "loss",
        "optimizer": {"weight_decay": DECAY},
        "schedule": {"name": "linear", "warmup": WARMUP},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return the run, and its model and training examples put together as plain torch sees them."""
    file = tiny_runs.run_file(tmp_path_factory.mktemp("run"), CHANGES)
    run = session.run(file, options=tiny_runs.quiet())
    data = file.task.module.read(file.task.config, file.paths, file.seed)
    backbone = file.backbone.module.load(file.backbone.config, data.problem, 0)
    task = file.task.module.bind(data, backbone, file.task.config, 0)
    setting = Setting(0, STEPS, 1, data.problem, lambda: iter(()))
    model = file.method.module.attach(backbone, file.method.config, setting).model
    return run, model.eval(), task.batch("train", range(ROWS), None), backbone.head


def at(run, model, step):
    """Give the model the weights of a step."""
    folder = run.checkpoints / checkpoint.name(step)
    saved = load_file(folder / "trainable.safetensors")
    own = surgery.trainable(model)
    assert saved.keys() == own.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])
    return {name: tensor.clone() for name, tensor in saved.items()}


def gradients(model, batch):
    """Return the mean cross-entropy of all examples at once, and its gradients by name."""
    model.zero_grad()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    loss = F.cross_entropy(model(**inputs).logits, batch["labels"], label_smoothing=SMOOTHING)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in surgery.trainable(model).items()}


def logged(run, name):
    return {row["step"]: row[name] for row in run.read_metrics() if row.get(name) is not None}


def test_the_logged_loss_is_the_mean_over_the_batch_whatever_its_micro_batches(done):
    run, model, batch, _ = done
    for step, loss in logged(run, "loss").items():
        at(run, model, step - 1)
        assert gradients(model, batch)[0] == pytest.approx(loss, rel=1e-5)


def test_the_logged_norm_is_the_gradients_before_clipping(done):
    run, model, batch, _ = done
    norms = logged(run, "gradient_norm")
    assert min(norms.values()) > CLIP  # so that the clip binds
    for step, norm in norms.items():
        at(run, model, step - 1)
        found = torch.cat([g.flatten() for g in gradients(model, batch)[1].values()]).norm()
        assert found.item() == pytest.approx(norm, rel=1e-4)


def test_the_weights_are_those_of_torchs_adamw_on_clipped_gradients_at_each_ones_rate(done):
    run, model, batch, head = done
    at(run, model, 0)
    own = surgery.trainable(model)

    def rate(name):
        if any(f".{module}." in f".{name}" for module in head):
            return HEAD_RATE
        return RATE * PLUS if "lora_B" in name else RATE

    assert {rate(name) for name in own} == {HEAD_RATE, RATE * PLUS, RATE}
    groups = [
        {"params": [p], "lr": rate(name), "weight_decay": DECAY if p.ndim > 1 else 0.0}
        for name, p in own.items()
    ]
    adamw = torch.optim.AdamW(groups)
    schedule = get_linear_schedule_with_warmup(adamw, WARMUP, STEPS)
    for step in range(1, STEPS + 1):
        gradients(model, batch)
        torch.nn.utils.clip_grad_norm_(own.values(), CLIP)
        adamw.step()
        schedule.step()
        expected = {name: parameter.detach().clone() for name, parameter in own.items()}
        saved = at(run, model, step)
        for name, tensor in saved.items():
            # beside steps of 1e-2: Adam makes the rounding of nearly no gradient large
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=2e-5)
        with torch.no_grad():  # the reference goes on from its own weights
            for name, parameter in own.items():
                parameter.copy_(expected[name])


def test_the_smallest_loss_is_the_best(done):
    run, *_ = done
    losses = logged(run, "validation/loss")
    assert len(set(losses.values())) == STEPS
    assert run.read_result()["selected_step"] == min(losses, key=losses.__getitem__)


@pytest.mark.parametrize(("best_by", "rate"), [("loss", 0.3), ("accuracy", 0.1)])
def test_the_best_is_the_smallest_loss_or_the_largest_score(tmp_path, best_by, rate):
    """A rate at which both go up and down, so that first, last and best are three steps."""
    training = {"learning_rate": rate, "evaluate_every": 1, "best_by": best_by, "clip_norm": 0}
    run = session.run(
        tiny_runs.run_file(tmp_path, {"training": training}), options=tiny_runs.quiet()
    )
    found = logged(run, f"validation/{best_by}")
    best = min(found.values()) if best_by == "loss" else max(found.values())
    first = min(step for step, value in found.items() if value == best)
    assert run.read_result()["selected_step"] == first
    assert first not in (1, 12)


class Seeds(Hook):
    """Notes the seed that torch stands at when each micro-batch has gone through."""

    def __init__(self):
        self.found = {}

    def after_backward(self, step, micro_step):
        self.found[step, micro_step] = torch.initial_seed()


class Pairs:
    """Eight rows of two numbers as a task."""

    problem, metrics = None, ("accuracy",)

    def lengths(self, split):
        return [1] * 8

    def batch(self, split, indices, epoch):
        return {"x": torch.tensor([[float(i), 1.0] for i in indices])}

    def count(self, batch):
        return len(batch["x"])

    def loss(self, model, batch, label_smoothing=0.0):
        return model(batch["x"]).square().sum()


def seeds_of(folder, seed):
    from accelerate import Accelerator

    folder.mkdir()
    run, hook = Run(folder), Seeds()
    model = torch.nn.Linear(2, 1)
    parts = Parts(
        run=run, attached=Attached(model, (hook,)), task=Pairs(), accelerator=Accelerator(cpu=True),
        evaluate=lambda _: {"loss": 0.0}, higher_is_better=False, best_by="loss", head=(), seed=seed,
        signals=Signals(),
    )  # fmt: skip
    config = Config(max_steps=4, batch_size=8, micro_batch_size=2, evaluate_every=0, save_every=0)
    lines, timing = Lines(run.metrics), Lines(run.timing)
    Loop(parts, config, lines, timing).run()
    lines.close()
    timing.close()
    return hook.found


def test_every_micro_step_draws_from_a_seed_of_its_own_that_is_the_runs(tmp_path):
    one, again, other = (seeds_of(tmp_path / n, s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert set(one) == {(step, micro) for step in range(1, 5) for micro in range(4)}
    assert len(set(one.values())) == len(one)
    assert one == again
    assert not set(one.values()) & set(other.values())
    # the documented form: (seed, step, micro-step, rank)
    assert one == {key: mix(1, "model", *key, 0) for key in one}


def test_the_curve_of_a_tiny_run_is_the_golden_one(tmp_path):
    """After a change that is meant to alter results: GRAFTLAB_UPDATE=1 pytest -k golden_one.

    1e-4: processors sum in other orders.
    """
    done = session.run(tiny_runs.run_file(tmp_path), options=tiny_runs.quiet())
    if os.environ.get("GRAFTLAB_UPDATE"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_bytes(done.metrics.read_bytes())
    expected = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    found = done.read_metrics()
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
