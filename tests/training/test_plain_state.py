"""What a checkpoint holds of a model with buffers, of hooks and of what a method computed, and puts back."""

import shutil

import pytest
import torch
from plain_loops import RATE, Scores, begun, fields, train
from torch import nn

from graftlab.contracts import Attached, Hook
from graftlab.errors import CheckpointError, DiskError
from graftlab.training import checkpoint, optimizer, resume
from graftlab.training.parallel.sharding import Whole
from graftlab.training.schedule import Config as Schedule
from graftlab.training.schedule import Plateau
from graftlab.training.state import Position, State


class Counting(Hook):
    """A hook whose state is a number and a tensor that each step changes, and that moves the weights."""

    def __init__(self):
        self.steps, self.sum = 0, torch.zeros(2)

    def on_step_start(self, step):
        self.steps, self.sum = self.steps + 1, self.sum + step

    def rate_factor(self, step):
        return 1.0 / self.steps

    def state_dict(self):
        return {"steps": self.steps, "sum": self.sum}

    def load_state_dict(self, state):
        self.steps, self.sum = state["steps"], state["sum"].clone()


def normed():
    """Return a model with statistics, of which some are kept and one is not."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model.register_buffer("scratch", torch.zeros(1), persistent=False)
    model[0].requires_grad_(False)
    return model


def attached(*hooks, **named):
    return Attached(normed(), hooks, **named)


def state(made, step=0):
    """Return the state of a run that has come so far."""
    groups = optimizer.groups(dict(made.model.named_parameters()), optimizer.Config(), {})
    moving = optimizer.build(groups, optimizer.Config())
    plateau = Plateau(Schedule(name="plateau"), True)
    return State(made, moving, plateau, None, Whole(), Position(step=step))


def saved(folder, made, step=0):
    """Write a checkpoint of it and return it."""
    tensors, values = resume.gather(state(made, step))
    checkpoint.save(folder, step, tensors, values)
    return checkpoint.load(folder / checkpoint.name(step))


CONFIG = fields(max_steps=4, save_every=1, evaluate_every=1, select="best")
SCORED = {"best_by": "accuracy", "higher_is_better": True}


def test_statistics_and_hooks_go_on_where_they_were(tmp_path):
    scores, hook = (0.1, 0.9, 0.2, 0.3), Counting()
    made = attached(hook)
    whole, run = train(tmp_path / "run", CONFIG, attached=made, evaluate=Scores(*scores), **SCORED)
    kept = checkpoint.load(run.checkpoints / checkpoint.name(2))
    assert set(kept.tensors["buffers"]) == {
        "1.running_mean", "1.running_var", "1.num_batches_tracked",
    }  # fmt: skip
    assert set(kept.tensors["trainable"]) == {
        name for name, p in made.model.named_parameters() if p.requires_grad
    }
    assert kept.tensors["buffers"]["1.num_batches_tracked"].item() == 2
    other = attached(Counting())
    parts = {**SCORED, "attached": other, "evaluate": Scores(*scores[2:])}
    with begun(tmp_path / "run", CONFIG, **parts) as loop:
        loop.restore(kept)
        assert other.hooks[0].steps == 2
        loop.run()
    assert other.hooks[0].sum.tolist() == hook.sum.tolist() == [10.0, 10.0]
    for one, two in zip(
        other.model.state_dict().values(), made.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two)
    assert not torch.equal(made.model[1].running_mean, kept.tensors["buffers"]["1.running_mean"])

    whole.restore_best()  # step 2, with its statistics and the hook's state
    assert hook.steps == 2
    for name, value in {**kept.tensors["trainable"], **kept.tensors["buffers"]}.items():
        assert torch.equal(made.model.state_dict()[name], value), name


def test_what_a_method_computed_is_kept_with_the_first_step_alone_and_comes_back(tmp_path):
    made = attached(computed=("0.weight",), record={"ranks": [1, 2]})
    first = saved(tmp_path, made)
    assert first.state["attached"] == {"ranks": [1, 2]}
    assert list(first.tensors["computed"]) == ["0.weight"]
    later = saved(tmp_path, made, step=3)
    assert "computed" not in later.tensors
    assert "computed" not in saved(tmp_path / "plain", attached()).tensors
    other = attached(computed=("0.weight",))
    with torch.no_grad():
        other.model[0].weight.zero_()
        other.model[2].weight.zero_()
    resume.restore_model(other, later, tmp_path)
    for name in ("0.weight", "2.weight"):
        assert torch.equal(other.model.state_dict()[name], made.model.state_dict()[name])


@pytest.mark.parametrize("file", ["computed.safetensors", "manifest.json"])
def test_where_that_is_damaged_or_gone_the_run_cannot_go_on(tmp_path, file):
    made = attached(computed=("0.weight",))
    saved(tmp_path, made)
    later = saved(tmp_path, made, step=3)
    path = tmp_path / checkpoint.name(0)
    (path / "optimizer.safetensors").write_bytes(b"")  # is not needed of the first
    resume.restore_model(made, later, tmp_path)
    (path / file).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=file):
        resume.restore_model(made, later, tmp_path)
    shutil.rmtree(path)
    with pytest.raises(CheckpointError, match=r"step-000000 is gone"):
        resume.restore_model(made, later, tmp_path)


def test_plateau_and_position_come_back(tmp_path):
    one = state(attached(), step=4)
    for value in (0.9, 0.1, 0.1, 0.1):
        one.plateau.update(value)
    one.position.best_step, one.position.task_sums = 3, {"a": [1.0, 2]}
    checkpoint.save(tmp_path, 4, *resume.gather(one))
    other = state(attached())
    resume.restore(other, checkpoint.load(tmp_path / checkpoint.name(4)), tmp_path)
    assert other.position == one.position
    assert other.plateau.state_dict() == one.plateau.state_dict()
    assert other.plateau.scale < 1


def change(name):
    """Return a checkpoint's files as another method or backbone would have left them."""

    def lacks(found):
        del found.tensors["trainable"]["2.weight"]

    def shape(found):
        found.tensors["trainable"]["2.weight"] = torch.zeros(1, 4)

    def unknown(found):
        found.tensors["buffers"]["9.mean"] = torch.zeros(5)

    def fewer_hooks(found):
        found.state["hooks"].clear()

    def no_hooks(found):
        del found.tensors["hooks"]

    return locals()[name]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change("lacks"), r"step 3 lacks 2\.weight"),
        (change("shape"), r"step 3: 2\.weight .*\(1, 4\).*\(1, 3\)"),
        (change("unknown"), r"step 3: 9\.mean .*\(5,\).*not there"),
        (change("fewer_hooks"), r"step 3 .* 0 hooks.* 1:"),
        (change("no_hooks"), r"step 3 lacks hooks\.safetensors"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_what_does_not_fit(tmp_path, change, named):
    found = saved(tmp_path, attached(Counting()), step=3)
    change(found)
    with pytest.raises(CheckpointError, match=named):
        resume.restore_model(attached(Counting()), found, tmp_path)


def test_a_best_checkpoint_of_another_run_is_refused_by_its_step(tmp_path):
    saved(
        tmp_path, Attached(nn.Sequential(nn.Linear(2, 3), nn.Identity(), nn.Linear(3, 2))), step=3
    )
    one = state(attached())
    one.position.best_step = 3
    with pytest.raises(CheckpointError, match=r"step 3: 2\.bias"):
        resume.restore_best(one, tmp_path)


def test_a_hook_may_be_gone_and_buffers_and_the_optimizer_may_be_lost(tmp_path):
    found = saved(tmp_path, attached(Counting(), Counting()), step=3)
    del found.tensors["buffers"], found.tensors["optimizer"]
    one = state(attached(Counting()))
    resume.restore(one, found, tmp_path)
    assert one.position.step == 3


def test_a_model_is_read_without_the_optimizer_and_of_sound_files_alone(tmp_path):
    saved(tmp_path, attached(), step=3)
    path = tmp_path / checkpoint.name(3)
    (path / "optimizer.safetensors").write_bytes(b"")
    found = resume.read(tmp_path, 3)
    assert sorted(found.tensors) == ["buffers", "hooks", "trainable"]
    (path / "buffers.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-000003.*buffers\.safetensors"):
        resume.read(tmp_path, 3)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"select": "best"}, [0, 2, 8, 9]),
        ({"select": "last"}, [0, 8, 9]),
        ({"select": "last", "keep_every": 3}, [0, 3, 6, 7, 8, 9]),
    ],
)
def test_the_first_the_best_the_newest_and_every_so_manyth_stay(tmp_path, changes, kept):
    one = state(attached())
    for step in range(10):
        one.position.step, one.position.best_step = step, min(step, 2)
        config = fields(keep_checkpoints=2, **changes)
        size = resume.write(tmp_path, *resume.gather(one), config)
        path = tmp_path / checkpoint.name(step)
        assert size == sum(file.stat().st_size for file in path.iterdir())
    assert checkpoint.steps(tmp_path) == kept


@pytest.mark.parametrize(
    ("share", "changes", "times"),
    [
        (1.25, {}, None),
        (0.26, {}, 2 + 2),  # two, the best, and the one that is being written
        (0.23, {}, 0),
        (0.23, {"keep_every": 10}, 2 + 3 + 2),
        (0.13, {"keep_every": 10}, 0),
    ],
)
def test_a_disk_has_to_hold_three_numbers_a_weight_as_often_as_they_stay(
    tmp_path, caplog, share, changes, times
):
    """One checkpoint takes a share of what is free: float32, its two moments beside it."""
    each = int(share * shutil.disk_usage(tmp_path).free / 3 / 4)
    model = nn.ParameterList([nn.Parameter(torch.empty(each, device="meta"))])
    model.append(nn.Parameter(torch.empty(each, device="meta"), requires_grad=False))
    config = fields(keep_checkpoints=2, **changes)
    if times is None:
        with pytest.raises(DiskError):
            resume.check_room(tmp_path, model, config, 30)
        return
    resume.check_room(tmp_path, model, config, 30)
    said = [record.args[2] for record in caplog.records]
    assert said == ([pytest.approx(times * 3 * 4 * each / 2**20)] if times else [])


def test_the_rate_of_a_run_that_goes_on_is_its_own(tmp_path):
    """The optimizer's groups are not of the checkpoint: the loop sets them."""
    _, run = train(tmp_path / "run", CONFIG)
    with begun(tmp_path / "run", fields(max_steps=4, learning_rate=2 * RATE)) as loop:
        loop.restore(checkpoint.load(run.checkpoints / checkpoint.name(3)))
        loop.run()
    assert run.read_metrics()[-1]["learning_rate"] == pytest.approx(2 * RATE)
