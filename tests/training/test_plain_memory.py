"""Memory that runs out, on a model so small that plain torch and arithmetic say what must come out."""

import pytest
import torch
from plain_loops import Squares, begun, fields, train

from graftlab.contracts import Hook
from graftlab.errors import OutOfMemory
from graftlab.training import checkpoint


class Small(Squares):
    """A task that runs out of memory where more than `room` examples go through at once."""

    def __init__(self, rows, room, error="CUDA out of memory."):
        super().__init__(rows)
        self.room, self.error, self.sizes = room, error, []

    def loss(self, model, batch, label_smoothing=0.0):
        self.sizes.append(len(batch["x"]))
        if self.sizes[-1] > self.room:
            raise RuntimeError(self.error)
        return super().loss(model, batch)


@pytest.mark.parametrize(
    "error",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "DefaultCPUAllocator: can't allocate memory: you",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.",
    ],
)
def test_a_step_begins_again_for_all_hooks_whoever_says_that_memory_is_full(tmp_path, error):
    class Told(Hook):
        def __init__(self):
            self.told = []

        def on_step_start(self, step):
            self.told.append(step)

        def after_backward(self, step, micro_step):
            self.told.append((step, micro_step))

    hook, task = Told(), Small(8, 4, error)
    train(tmp_path / "run", fields(max_steps=2, batch_size=8), task, (hook,))
    assert hook.told == [1, 1, (1, 0), (1, 1), 2, (2, 0), (2, 1)]


@pytest.mark.parametrize(
    ("rows", "room", "sizes", "said"),
    [
        (8, 4, [8, 4, 4], (1, 8, 4)),
        (9, 8, [9, 5, 4], (1, 9, 5)),  # half of an odd number is rounded up
    ],
)
def test_the_micro_batch_halves_when_memory_runs_out(tmp_path, caplog, rows, room, sizes, said):
    task = Small(rows, room)
    loop, _ = train(tmp_path / "run", fields(max_steps=1, batch_size=rows), task)
    assert task.sizes == sizes
    assert [record.args for record in caplog.records] == [said]
    assert loop.position.micro_batch_size == sizes[1]
    plain, _ = train(tmp_path / "plain", fields(max_steps=1, batch_size=rows), Squares(rows))
    torch.testing.assert_close(loop.model.state_dict(), plain.model.state_dict())


def test_half_of_a_batch_that_is_smaller_than_a_micro_batch_is_half_of_it(tmp_path, caplog):
    """The second batch of an epoch of ten has four, and runs out where the first one of six did not."""

    class Odd(Small):
        def loss(self, model, batch, label_smoothing=0.0):
            self.room = 6 if len(batch["x"]) != 4 else 3
            return super().loss(model, batch)

    task = Odd(10, 6)
    train(tmp_path / "run", fields(max_steps=2, batch_size=6), task)
    assert task.sizes == [6, 4, 2, 2]
    assert [record.args for record in caplog.records] == [(2, 4, 2)]


def test_one_example_that_does_not_fit_ends_the_run_and_other_errors_stay_what_they_are(tmp_path):
    with (
        begun(tmp_path / "none", fields(), Small(8, 0, "CUDA out of memory.\nmore")) as loop,
        pytest.raises(OutOfMemory) as caught,
    ):
        loop.run()
    assert caught.value.exit_code == 5
    assert "more" not in str(caught.value)
    with (
        begun(tmp_path / "other", fields(), Small(8, 0, "odd")) as loop,
        pytest.raises(RuntimeError, match="odd"),
    ):
        loop.run()


def test_memory_that_runs_out_in_the_optimizer_is_not_tried_again(tmp_path):
    with begun(tmp_path / "run", fields()) as loop:

        def step():
            raise torch.OutOfMemoryError("CUDA out of memory.")

        loop.optimizer.step = step
        with pytest.raises(OutOfMemory):
            loop.run()
    with begun(tmp_path / "other", fields()) as loop:
        loop.optimizer.step = lambda: [][0]
        with pytest.raises(IndexError):
            loop.run()


def test_a_micro_batch_that_was_cut_stays_cut_and_is_no_larger_than_asked_for_now(tmp_path):
    config = fields(max_steps=4, batch_size=8, save_every=1)
    _, run = train(tmp_path / "run", config, Small(8, 4))
    saved = checkpoint.load(run.checkpoints / checkpoint.name(2))
    for asked, used in ((0, 4), (2, 2), (6, 4)):
        again = fields(max_steps=4, batch_size=8, save_every=1, micro_batch_size=asked)
        with begun(tmp_path / "run", again) as loop:
            loop.restore(saved)
        assert loop.batches.micro_batch_size == used
