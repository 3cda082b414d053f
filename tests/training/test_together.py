"""Small processes that train together train, log and save as one process does."""

import signal

import pytest
import torch
from forked import together
from plain_loops import Halves, Scores, Squares, begun, fields, train

from graftlab.contracts import Hook
from graftlab.errors import Stopped
from graftlab.rundir.lines import read_lines
from graftlab.training import checkpoint
from graftlab.training.parallel.faults import ProcessError

ROWS = 13  # shares of 7 and 6, so that micro-batches of 2 and of 3 are another number


class Sizes(Hook):
    """Losses of both kinds, a decision, and moments that not all processes have alike."""

    def on_train_start(self, training):
        self.training = training

    def loss_terms(self, step):
        return {"term": self.training.model.weight.square().sum()}

    def micro_batch_losses(self, micro):
        return {"size": micro.per_example(micro.outputs.abs().sum())}


def close(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, two in zip(ours, theirs, strict=True):
        assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.parametrize("task", [Squares, Halves])
@pytest.mark.parametrize("hooks", [(), (Sizes(),)], ids=["plain", "hooks"])
def test_two_train_log_and_save_what_one_does(tmp_path, task, hooks):
    config = fields(
        batch_size=ROWS, micro_batch_size=2, max_steps=4, save_every=2, evaluate_every=2,
        logging_every=2, clip_norm=0.05,
    )  # fmt: skip
    told = {"best_by": "accuracy", "higher_is_better": True}
    alone, one = train(
        tmp_path / "one", config, task(ROWS), hooks, evaluate=Scores(0.1, 0.2), **told
    )

    def work(processes):
        loop, _ = train(
            tmp_path / "two", config, task(ROWS), hooks, evaluate=Scores(0.1, 0.2), processes=processes,
            **told,
        )  # fmt: skip
        return {name: value.numpy() for name, value in loop.model.state_dict().items()}

    weights = together(tmp_path / "store", work)
    two = type(one)(tmp_path / "two")
    shown = one.read_metrics()
    for row in shown:  # of several processes each has but a share of a task's gradient
        for name in ("even/gradient_norm", "odd/gradient_norm"):
            row.pop(name, None)
    close(two.read_metrics(), shown)
    for name, value in alone.model.state_dict().items():
        assert weights[0][name].tobytes() == weights[1][name].tobytes()
        torch.testing.assert_close(torch.tensor(weights[0][name]), value)
    assert checkpoint.steps(two.checkpoints) == checkpoint.steps(one.checkpoints) == [0, 2, 4]
    saved = checkpoint.load(two.checkpoints / checkpoint.name(2))
    assert (saved.state["world"], saved.state["micro_batch_size"]) == (2, 2)
    torch.testing.assert_close(
        dict(saved.tensors["trainable"]),
        dict(checkpoint.load(one.checkpoints / checkpoint.name(2)).tensors["trainable"]),
    )
    assert {row["step"] for row in read_lines(two.timing)} == {0, 2, 4}


def test_memory_that_runs_out_in_one_halves_the_micro_batch_of_all(tmp_path):
    class Small(Squares):
        def loss(self, model, batch, label_smoothing=0.0):
            self.sizes.append(len(batch["x"]))
            if len(batch["x"]) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().loss(model, batch)

    def work(processes):
        task = Small()
        task.sizes, task.room = [], 2 if processes.main else 9
        loop, _ = train(
            tmp_path / "two", fields(max_steps=1, batch_size=8), task, processes=processes
        )
        return task.sizes, loop.position.micro_batch_size, loop.model.weight.tolist()

    first, second = together(tmp_path / "store", work)
    assert first[:2] == ([4, 2, 2], 2)
    assert second[:2] == ([4, 2, 2], 2)
    alone, _ = train(tmp_path / "one", fields(max_steps=1, batch_size=8))
    assert first[2] == second[2] == [pytest.approx(row) for row in alone.model.weight.tolist()]


def test_a_signal_to_one_stops_all_after_the_same_step(tmp_path):
    class Asked(Hook):
        def on_step_start(self, step):
            if step == 2 and not self.parts.processes.main:
                self.parts.signals.received = signal.SIGTERM

    def work(processes):
        hook = Asked()
        with begun(tmp_path / "two", fields(), None, (hook,), processes=processes) as loop:
            hook.parts = loop.parts
            try:
                loop.run()
            except Stopped as error:
                return loop.position.step, error.exit_code
        return None

    assert together(tmp_path / "store", work) == [(2, 143), (2, 143)]
    assert checkpoint.steps(tmp_path / "two" / "checkpoints") == [0, 2]


def test_processes_that_drift_apart_end_at_the_next_checkpoint(tmp_path):
    class Drifting(Hook):
        def on_train_start(self, training):
            self.weight = training.model.weight

        def after_optimizer_step(self, step):
            if step == 2 and not self.main:
                with torch.no_grad():
                    self.weight.view(-1)[0] += 1e-7
            return {}

    def work(processes):
        hook = Drifting()
        hook.main = processes.main
        config = fields(max_steps=4, save_every=2)
        with begun(tmp_path / "two", config, None, (hook,), processes=processes) as loop:
            try:
                loop.run()
            except ProcessError as error:
                return loop.position.step, str(error)
        return None

    first, second = together(tmp_path / "store", work)
    assert (first[0], second[0]) == (2, 2)
    assert second[1].startswith("weight is ")
    assert "1 of 2" in second[1]
    assert "(in process 1)" in first[1]
    assert checkpoint.steps(tmp_path / "two" / "checkpoints") == [0]
