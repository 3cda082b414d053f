"""What the loop does around its steps, on a model so small that plain torch and arithmetic say it."""

import itertools
import logging
import math
import time
from typing import get_args

import pytest
import torch
from plain_loops import RATE, Scores, Squares, begun, fields, linear, train
from transformers import get_scheduler

from graftlab.contracts import Hook
from graftlab.errors import Diverged
from graftlab.rundir.lines import read_lines
from graftlab.training import checkpoint
from graftlab.training.parallel.processes import Processes
from graftlab.training.schedule import Config as Schedule

NAME = Schedule.model_fields["name"].annotation


def test_lines_hold_the_mean_of_all_examples_since_the_last_and_the_end_has_one(tmp_path):
    """Batches of 4 and 2, so that a mean of means would be another; a rate at which nothing moves."""
    config = fields(max_steps=8, logging_every=3, learning_rate=1e-12)
    loop, run = train(tmp_path / "run", config, Squares(6))
    model, task = linear(), loop.parts.task
    with torch.no_grad():
        each = model(task.data).square().flatten()
    expected = {}
    for steps in ((1, 2, 3), (4, 5, 6), (7, 8)):
        seen = [index for step in steps for index in loop.order.batch(step)]
        expected[steps[-1]] = each[seen].mean().item()
    assert [len(loop.order.batch(step)) for step in (1, 2)] == [4, 2]
    found = {row["step"]: row["loss"] for row in run.read_metrics()}
    assert found == pytest.approx(expected, rel=1e-5)


def test_no_line_is_written_where_none_is_asked_for(tmp_path):
    _, run = train(tmp_path / "run", fields(logging_every=0))
    assert run.read_metrics() == []


def test_the_clock_has_every_example_once_and_each_checkpoint_its_bytes(tmp_path):
    config = fields(max_steps=7, logging_every=3, save_every=4)
    _, run = train(tmp_path / "run", config, Squares(6))
    rows = read_lines(run.timing)
    spent = {row["step"]: row["examples"] for row in rows if "examples" in row}
    assert spent == {3: 4 + 2 + 4, 6: 2 + 4 + 2, 7: 4}
    assert all(row["seconds"] >= 0 for row in rows)
    saved = {row["step"]: row["bytes"] for row in rows if row.get("event") == "checkpoint"}
    sizes = {
        step: sum(p.stat().st_size for p in (run.checkpoints / checkpoint.name(step)).iterdir())
        for step in (0, 4, 7)
    }
    assert saved == sizes


def test_the_seconds_of_a_line_are_those_of_all_its_steps(tmp_path, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    _, run = train(tmp_path / "run", fields(max_steps=5, logging_every=3))
    rows = [row for row in read_lines(run.timing) if "event" not in row]
    assert [(row["step"], row["seconds"]) for row in rows] == [(3, 3.0), (5, 2.0)]


def test_sinks_are_told_the_step_its_scalars_and_the_examples_seen_so_far(tmp_path):
    told = []
    _, run = train(
        tmp_path / "run", fields(max_steps=4, logging_every=2), Squares(6),
        sinks=(lambda *what: told.append(what),),
    )  # fmt: skip
    assert [(step, seen) for step, _, seen in told] == [(2, 6), (4, 12)]
    assert [{"step": step, **scalars} for step, scalars, _ in told] == run.read_metrics()


def test_the_best_is_saved_where_it_is_chosen_by_it_and_the_last_is_saved_anyway(tmp_path):
    values = (0.5, 0.7, 0.6, None, math.nan)
    for select, kept in (("best", {0, 1, 2, 5}), ("last", {0, 5})):
        loop, run = train(
            tmp_path / select, fields(max_steps=5, evaluate_every=1, select=select),
            evaluate=Scores(*values), best_by="accuracy", higher_is_better=True,
        )  # fmt: skip
        assert set(checkpoint.steps(run.checkpoints)) == kept
        assert (loop.position.best_step, loop.position.best_value) == (2, 0.7)
        logged = [row["validation/accuracy"] for row in run.read_metrics() if "loss" not in row]
        assert logged == [0.5, 0.7, 0.6, None, None]


def test_the_end_is_evaluated_and_stopping_early_says_where_and_for_which_step(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "graftlab"):
        loop, run = train(
            tmp_path / "run",
            fields(max_steps=9, evaluate_every=2, early_stopping={"patience": 2}),
            evaluate=Scores(0.5, 0.4, 0.3), best_by="accuracy", higher_is_better=True,
        )  # fmt: skip
    assert (loop.position.step, loop.position.ended) == (6, True)
    assert [record.args for record in caplog.records] == [(6, 2)]
    assert checkpoint.steps(run.checkpoints)[-1] == 6
    _, run = train(tmp_path / "odd", fields(max_steps=3, evaluate_every=2))
    assert [row["step"] for row in run.read_metrics() if "validation/loss" in row] == [2, 3]


def test_an_epoch_is_as_many_steps_as_its_batches(tmp_path):
    config = fields(max_steps=5, evaluate_every="epoch", save_every="epoch")
    _, run = train(tmp_path / "run", config, Squares(6), higher_is_better=True)
    assert [row["step"] for row in run.read_metrics() if "validation/loss" in row] == [2, 4, 5]
    assert checkpoint.steps(run.checkpoints) == [0, 2, 4, 5]


def test_a_plateau_lowers_the_rate_of_the_steps_after_it(tmp_path):
    config = fields(
        max_steps=4, evaluate_every=1, schedule={"name": "plateau", "patience": 0, "factor": 0.5}
    )
    _, run = train(
        tmp_path / "run", config, evaluate=Scores(0.5, 0.4, 0.6, 0.1),
        best_by="accuracy", higher_is_better=True,
    )  # fmt: skip
    rates = [row["learning_rate"] for row in run.read_metrics() if "learning_rate" in row]
    assert rates == pytest.approx([RATE, RATE, RATE / 2, RATE / 2])


@pytest.mark.parametrize("name", [n for n in get_args(NAME) if n != "plateau"])
def test_no_other_schedule_is_lowered_where_nothing_improves(tmp_path, name):
    """Every evaluation is worse than the one before it; rates are those of transformers, or of StepLR."""
    steps, scores = 12, [1 - step / 100 for step in range(12)]
    config = fields(max_steps=steps, evaluate_every=1, schedule={"name": name, "warmup": 0})
    _, run = train(
        tmp_path / "run",
        config,
        evaluate=Scores(*scores),
        best_by="accuracy",
        higher_is_better=True,
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    if name == "step":
        theirs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=steps // 3, gamma=0.1)
    else:
        theirs = get_scheduler(name, optimizer, 0, steps)
    wanted = []
    for _ in range(steps):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    rates = [row["learning_rate"] for row in run.read_metrics() if "learning_rate" in row]
    assert rates == pytest.approx(wanted, rel=1e-9, abs=1e-12)


class Spoiled(Squares):
    """A task whose loss is not a number the first times it is asked; its gradient may be one."""

    def __init__(self, times, gradient=math.nan):
        super().__init__()
        self.left, self.gradient = times, gradient

    def loss(self, model, batch, label_smoothing=0.0):
        self.left -= 1
        loss = super().loss(model, batch)
        return loss if self.left < 0 else loss * self.gradient + math.nan


@pytest.mark.parametrize("gradient", [math.nan, 1.0])
def test_a_skipped_step_is_a_gap_that_is_said_with_its_examples(tmp_path, caplog, gradient):
    config = fields(max_steps=3, max_skipped=2, save_every=1)
    loop, run = train(tmp_path / "run", config, Spoiled(1, gradient))
    rows = run.read_metrics()
    assert {k: rows[0][k] for k in ("step", "loss", "skipped")} == {
        "step": 1, "loss": None, "skipped": 1.0,
    }  # fmt: skip
    (said,) = caplog.records
    step, loss, norm, examples = said.args
    assert (step, examples) == (1, loop.order.batch(1))
    assert math.isnan(loss)
    assert math.isnan(norm) == math.isnan(gradient)
    saved = [
        checkpoint.load(run.checkpoints / checkpoint.name(step)).tensors["trainable"]["weight"]
        for step in (0, 1, 2)
    ]
    assert torch.equal(saved[0], saved[1])
    assert not torch.equal(saved[1], saved[2])
    assert (loop.position.skipped, loop.position.skipped_in_row) == (1, 0)
    assert [row["loss"] for row in rows if row["step"] == 1] == [None, None]


@pytest.mark.parametrize(("at", "precision"), [(1, "fp32"), (2, "fp16")])
def test_as_many_in_a_row_as_are_allowed_end_the_run(tmp_path, at, precision):
    config = fields(max_skipped=at, precision=precision)
    with (
        begun(tmp_path / "run", config, Spoiled(9)) as loop,
        pytest.raises(Diverged, match=f"step {at}") as caught,
    ):
        loop.run()
    assert ("bf16" in str(caught.value)) == (precision == "fp16")
    assert (loop.position.step, loop.position.skipped) == (at, at)


def test_a_gradient_of_zero_is_said_once_and_only_of_the_first_lines(tmp_path, caplog):
    class Nothing(Squares):
        def loss(self, model, batch, label_smoothing=0.0):
            return super().loss(model, batch) * 0.0

    train(tmp_path / "run", fields(logging_every=2), Nothing())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


class Moments(Hook):
    """Writes down what it is told, and lowers the rate."""

    def __init__(self):
        self.told = []

    def on_train_start(self, training):
        self.training = training

    def on_step_start(self, step):
        self.told.append(("start", step))

    def loss_terms(self, step):
        weight = self.training.model.weight
        return {"term": step * weight.square().sum()}

    def after_backward(self, step, micro_step):
        self.told.append(("backward", step, micro_step))

    def before_optimizer_step(self, step):
        gradient = self.training.model.weight.grad
        self.told.append(("before", step))
        return {"seen": gradient.norm().item()}

    def rate_factor(self, step):
        return 0.5 / step

    def after_optimizer_step(self, step):
        self.told.append(("after", step))
        return {"after": float(step)}

    def on_train_end(self):
        self.told.append(("end",))
        self.training.tell({"told": 3.0})


def test_hooks_are_told_each_moment_once_and_what_they_add_is_plain_torchs(tmp_path):
    hook = Moments()
    config = fields(max_steps=2, micro_batch_size=3)
    loop, run = train(tmp_path / "run", config, None, (hook,))
    moments = [
        [("start", s), ("backward", s, 0), ("backward", s, 1), ("before", s), ("after", s)]
        for s in (1, 2)
    ]
    assert hook.told == [*moments[0], *moments[1], ("end",)]
    model = linear()
    *rows, last = run.read_metrics()
    assert last == {"step": 2, "told": 3.0}
    for row in rows:
        step = row["step"]
        loss = model(loop.parts.task.data[loop.order.batch(step)]).square().mean()
        term = step * model.weight.square().sum()
        model.zero_grad()
        (loss + term).backward()
        assert row == pytest.approx(
            {
                "step": step, "loss": loss.item(), "term": term.item(), "after": step,
                "learning_rate": RATE / 2 / step, "seen": model.weight.grad.norm().item(),
                "gradient_norm": torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item(),
            }, rel=1e-5,
        )  # fmt: skip
        with torch.no_grad():
            for p in model.parameters():
                p -= RATE / 2 / step * p.grad
    torch.testing.assert_close(loop.model.state_dict(), model.state_dict())
    training = hook.training
    assert training.model is loop.model
    assert (training.num_steps, training.steps_per_epoch) == (2, 2)
    assert [training.micro_batches(step) for step in (1, 2)] == [2, 2]
    assert training.agree(True) is True
    assert training.agree(False) is False


class Silent(Processes):
    """A process that is alone, and is not to be asked."""

    def add(self, *values):
        raise AssertionError("it was asked")

    gather = add_gradients = follow = add


def test_one_process_asks_nobody(tmp_path):
    train(tmp_path / "run", fields(), None, (Moments(),), processes=Silent())


def test_the_probe_is_the_mean_loss_of_the_first_steps_examples_without_dropout(tmp_path):
    hook = Moments()
    model = torch.nn.Sequential(linear(), torch.nn.Dropout(0.5))
    model.weight = model[0].weight
    config = fields(micro_batch_size=3, batch_size=4)
    from graftlab.contracts import Attached

    with begun(tmp_path / "run", config, attached=Attached(model, (hook,))) as loop:
        model.train()
        drawn = torch.get_rng_state()
        found = hook.training.probe()
    assert model.training
    assert model[1].training
    assert torch.equal(torch.get_rng_state(), drawn)
    rows = loop.parts.task.data[loop.order.batch(1)[:3]]
    assert found == pytest.approx(model[0](rows).square().mean().item())
