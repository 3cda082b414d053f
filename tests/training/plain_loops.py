"""Loops over a linear model of two numbers, so small that plain torch says what must come out."""

import contextlib

import torch
from accelerate import Accelerator

from graftlab.config import merge
from graftlab.contracts import Attached
from graftlab.rundir.lines import Lines, NoLines
from graftlab.rundir.run import Run
from graftlab.training.config import Config
from graftlab.training.loop import Loop, Parts
from graftlab.training.signals import Signals

RATE = 0.1


class Squares:
    """Rows of two numbers as a task: the squares of what the model makes of them."""

    problem, metrics = None, ("accuracy",)

    def __init__(self, rows=8):
        self.data = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))

    def lengths(self, split):
        assert split == "train"
        return [1] * len(self.data)

    def batch(self, split, indices, epoch):
        assert split == "train"
        return {"x": self.data[list(indices)]}

    def count(self, batch):
        return len(batch["x"])

    def loss(self, model, batch, label_smoothing=0.0):
        return model(batch["x"]).square().sum()


class Halves(Squares):
    """Two tasks in one: the even rows and the odd ones."""

    names = ("even", "odd")

    def parts(self, split):
        assert split == "train"
        return torch.arange(len(self.data)).numpy() % 2

    def draws(self, seed, epoch):
        return torch.randperm(
            len(self.data), generator=torch.Generator().manual_seed(epoch)
        ).numpy()


class Scores:
    """An evaluation that returns what it was given, one value after another."""

    def __init__(self, *values):
        self.values = iter(values)

    def __call__(self, model):
        return {"loss": 1.0, "accuracy": next(self.values)}


def linear():
    torch.manual_seed(1)
    return torch.nn.Linear(2, 1)


def fields(**changes):
    """Return the settings of a loop of SGD at one rate that logs each step and evaluates and saves never."""
    plain = {
        "batch_size": 4, "max_steps": 6, "learning_rate": RATE, "evaluate_every": 0, "save_every": 0,
        "clip_norm": 0.0, "logging_every": 1, "keep_checkpoints": 99,
        "optimizer": {"name": "sgd"}, "schedule": {"name": "constant", "warmup": 0},
    }  # fmt: skip
    return Config.model_validate(merge(plain, changes))


@contextlib.contextmanager
def begun(folder, settings, task=None, hooks=(), /, **parts):
    """Yield a loop in a run directory of its own, which may be there already."""
    folder.mkdir(exist_ok=True)
    run = Run(folder)
    given = {
        "run": run, "attached": Attached(linear(), tuple(hooks)), "task": task or Squares(),
        "accelerator": Accelerator(cpu=True), "evaluate": lambda _: {"loss": 0.0}, "best_by": "loss",
        "higher_is_better": False, "head": (), "seed": 0, "signals": Signals(),
    }  # fmt: skip
    made = Parts(**given | parts)
    kind = Lines if made.processes.main else lambda _: NoLines()
    lines, timing = kind(run.metrics), kind(run.timing)
    with contextlib.ExitStack() as files:
        for file in (lines, timing):
            files.callback(file.close)
        loop = Loop(made, settings, lines, timing)
        for table in loop.tables.values():
            files.callback(table.close)
        loop.begin()
        yield loop


def train(*arguments, **parts):
    """Train from the beginning; return the loop and its run directory."""
    with begun(*arguments, **parts) as loop:
        loop.run()
    return loop, loop.parts.run
