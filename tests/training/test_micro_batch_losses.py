"""Losses that read a micro-batch weigh as the task's own does: in any pieces, on any number of processes."""

import pytest
import several
import tiny_runs
import torch
from torch.nn import functional as F

from graftlab.contracts import Attached, Hook
from graftlab.rundir.lines import Lines
from graftlab.rundir.run import Run
from graftlab.training.config import Config
from graftlab.training.loop import Loop, Parts
from graftlab.training.signals import Signals

ROWS, STEPS, RATE = 8, 3, 0.1
DATA = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0))
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


class Squares:
    """Rows of two numbers as a task: the squares of what the model makes of them. Each counts as three."""

    metrics = ("accuracy",)

    def lengths(self, split):
        return [1] * ROWS

    def batch(self, split, indices, epoch):
        return {"x": DATA[list(indices)]}

    def count(self, batch):
        return 3 * len(batch["x"])

    def loss(self, model, batch, label_smoothing=0.0):
        return model(batch["x"]).square().sum()


class Distances(Squares):
    """The same task, which also asks that the model returns what it was given first."""

    def micro_batch_losses(self, micro):
        return {"distance": (micro.outputs[:, 0] - micro.batch["x"][:, 0]).abs().sum()}


class Sizes(Hook):
    """The size of each output, as a mean over examples."""

    def micro_batch_losses(self, micro):
        return {"size": micro.per_example(micro.outputs.abs().sum())}


def model_at_start():
    torch.manual_seed(1)
    return torch.nn.Linear(2, 1)


def train(folder, task, hooks, micro_batch_size, logging_every=1):
    from accelerate import Accelerator

    folder.mkdir()
    run, model = Run(folder), model_at_start()
    parts = Parts(
        run=run, attached=Attached(model, hooks), task=task, accelerator=Accelerator(cpu=True),
        evaluate=lambda _: {"loss": 0.0}, higher_is_better=False, best_by="loss", head=(), seed=0,
        signals=Signals(),
    )  # fmt: skip
    fields = Config(
        max_steps=STEPS, batch_size=ROWS, micro_batch_size=micro_batch_size, learning_rate=RATE,
        evaluate_every=0, save_every=0, clip_norm=0.0, logging_every=logging_every,
        optimizer={"name": "sgd"}, schedule={"name": "constant", "warmup": 0},
    )  # fmt: skip
    lines, timing = Lines(run.metrics), Lines(run.timing)
    Loop(parts, fields, lines, timing).run()
    lines.close()
    timing.close()
    return run.read_metrics(), model


def plain_torch():
    """Return what each step must log, and the model, all rows at once and each mean spelled out."""
    model, rows = model_at_start(), []
    for step in range(1, STEPS + 1):
        y = model(DATA)
        terms = {
            "loss": y.square().sum() / (3 * ROWS),
            "size": y.abs().mean(),
            "distance": (y[:, 0] - DATA[:, 0]).abs().sum() / (3 * ROWS),
        }
        model.zero_grad()
        sum(terms.values()).backward()
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        rows.append(
            {"step": step, "gradient_norm": norm.item()} | {k: v.item() for k, v in terms.items()}
        )
        with torch.no_grad():
            for p in model.parameters():
                p -= RATE * p.grad
    return rows, model


@pytest.mark.parametrize("micro_batch_size", [8, 3, 1])
def test_in_any_pieces_they_are_what_plain_torch_makes_of_the_whole_batch(
    tmp_path, micro_batch_size
):
    found, model = train(tmp_path / "run", Distances(), (Sizes(),), micro_batch_size)
    expected, other = plain_torch()
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx({**theirs, "learning_rate": RATE}, rel=1e-5)
    torch.testing.assert_close(model.state_dict(), other.state_dict())


def test_a_line_holds_their_mean_since_the_last_one(tmp_path):
    each, _ = train(tmp_path / "each", Distances(), (Sizes(),), 4)
    (line,), _ = train(tmp_path / "line", Distances(), (Sizes(),), 4, logging_every=STEPS)
    for name in ("loss", "size", "distance"):
        assert line[name] == pytest.approx(sum(row[name] for row in each) / STEPS)


def test_without_them_no_name_is_logged_and_nothing_is_kept_of_the_model(tmp_path):
    rows, model = train(tmp_path / "run", Squares(), (Hook(),), 4)
    assert set(rows[0]) == {"step", "loss", "learning_rate", "gradient_norm"}
    assert not model._forward_hooks


class Again(Hook):
    """The task's own loss once more, made of what the model has returned."""

    def micro_batch_losses(self, micro):
        logits, labels = micro.outputs.logits.float(), micro.batch["labels"]
        return {"again": F.cross_entropy(logits, labels, reduction="sum")}


def bring_hook():
    """Let each run bring the hook."""
    import dataclasses

    from graftlab.runs import attachment

    real = attachment.attach
    attachment.attach = lambda *given: dataclasses.replace(real(*given), hooks=(Again(),))


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, FSDP], ids=["whole", "fsdp"])
def test_two_processes_with_uneven_shares_train_and_log_what_one_does(tmp_path, environment):
    changes = {
        "backbone": {"dropout": 0.0},
        "method": {"name": "lora", "dropout": 0.0},
        "training": {"batch_size": 13, "micro_batch_size": 3, "max_steps": 6, "logging_every": 2},
    }
    tiny_runs.run_file(tmp_path, changes)
    path, patch = tmp_path / "run.yaml", several.everywhere(bring_hook)
    ended = several.start(several.train, path, tmp_path / "one", patch, world=1)
    two = {"environment": environment}
    ended += several.start(several.train, path, tmp_path / "two", patch, **two)
    assert [process.code for process in ended] == [0, 0, 0], ended
    one, two = (Run(tmp_path / name).read_metrics() for name in ("one", "two"))
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    lines = [row for row in one if "again" in row]
    assert [row["again"] for row in lines] == pytest.approx(
        [row["loss"] for row in lines], rel=1e-5
    )
    assert [row["step"] for row in lines] == [2, 4, 6]
