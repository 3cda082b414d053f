"""Runs in several processes, as a launcher starts them, but forked from a server that has imported all."""

import contextlib
import functools
import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from graftlab.errors import GraftlabError
from graftlab.workers.child import PRELOADED

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([*PRELOADED])
PATIENCE_S = 180


class Ended(NamedTuple):
    """How one of the processes has ended."""

    code: int
    """As the command would return it; negative where a signal has ended it."""
    value: Any
    """What the work has returned, or the error's text."""


def start(
    work: Callable[..., Any],
    *arguments: Any,
    world: int = 2,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> list[Ended]:
    """Do `work(*arguments)` in `world` processes that know of each other; return how each has ended."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    started = []
    for rank in range(world):
        here, there = FORKS.Pipe(duplex=False)
        place = rank, world, port, {**os.environ, **environment}
        process = FORKS.Process(target=_child, args=(place, there, work, arguments))
        process.start()
        there.close()
        started.append((process, here))
    ended = []
    try:
        for process, pipe in started:
            value = None
            with contextlib.suppress(EOFError):  # it was killed
                assert pipe.poll(PATIENCE_S), "the processes wait for each other"
                value = pipe.recv()
            process.join(PATIENCE_S)
            ended.append(Ended(*value) if value else Ended(process.exitcode, None))
    finally:
        for process, _ in started:
            process.kill()
    return ended


def _child(place, pipe, work, arguments):
    rank, world, port, environment = place
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **environment,
    }  # fmt: skip
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    torch.set_num_threads(1)
    try:
        pipe.send((0, work(*arguments)))
    except GraftlabError as error:
        pipe.send((error.exit_code, f"{type(error).__name__}: {error}"))
    except Exception:
        pipe.send((1, traceback.format_exc()))


def train(path, out, *patches):
    """Begin the run file at `path` in `out`, or go on with the run there if it is None; return its last
    trainable weights, and the seeds of its micro-batches. Each patch is called with the rank."""
    import tiny_runs

    from graftlab import config, runfile
    from graftlab.runs import session
    from graftlab.training import step
    from graftlab.training.loop import Loop
    from graftlab.weights import surgery

    for patch in patches:
        patch(int(os.environ["RANK"]))
    weights, seeds = {}, []
    seed_everything = step.seed_everything
    step.seed_everything = lambda seed: seeds.append(seed) or seed_everything(seed)
    real = Loop.run

    def run(self):
        position = real(self)
        own = surgery.trainable(self.model).items()
        weights.update({n: surgery.whole(p.detach()).cpu().numpy() for n, p in own})
        return position

    Loop.run = run
    if path is None:
        session.resume(out, tiny_runs.quiet())
    else:
        session.run(runfile.resolve(config.read(path)), out, options=tiny_runs.quiet())
    return weights, seeds


def on(rank, patch, *arguments):
    """Return a patch for one rank only."""
    return functools.partial(_on, rank, patch, arguments)


def everywhere(patch, *arguments):
    """Return a patch for all."""
    return functools.partial(_on, None, patch, arguments)


def _on(wanted, patch, arguments, rank):
    if wanted in (rank, None):
        patch(*arguments)


def before_step(step, action):
    """Do `action` before a step's forward passes."""
    from graftlab.training.step import Stepper

    real = Stepper.step

    def acting(self, number, rate):
        if number == step:
            action()
        return real(self, number, rate)

    Stepper.step = acting


def send(number):
    os.kill(os.getpid(), number)


kill = functools.partial(send, signal.SIGKILL)
terminate = functools.partial(send, signal.SIGTERM)


def terminate_in_evaluation():
    from graftlab.runs import prediction

    real = prediction.predict

    def predict(*arguments, **named):
        prediction.predict = real
        terminate()
        return real(*arguments, **named)

    prediction.predict = predict


def spoil():
    from graftlab.errors import DataError

    raise DataError("row 7 cannot be read")


def break_down():
    raise ZeroDivisionError("a bug")


def small_memory(limit):
    """Let forward passes run out of memory above `limit` examples."""
    import torch

    from graftlab.tasks.classification import TextTask

    real = TextTask.loss

    def loss(self, model, batch, smoothing=0.0):
        if len(batch["labels"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, model, batch, smoothing)

    TextTask.loss = loss


def drift(step):
    """Move the weights of this process alone."""
    import torch

    from graftlab.training.step import Stepper

    real = Stepper.step

    def moved(self, number, rate):
        done = real(self, number, rate)
        if number == step:
            with torch.no_grad():
                self.optimizer.param_groups[0]["params"][0].view(-1)[0] += 1e-7
        return done

    Stepper.step = moved


def count_examples(seen):
    """Give the model a buffer that counts what it is given in training, as batch norm's statistics do;
    `seen` gets its last value."""
    import torch

    from graftlab.runs import attachment
    from graftlab.training.loop import Loop

    attach, run = attachment.attach, Loop.run

    def counting(file, backbone, *rest):
        def count(model, arguments, named):
            if model.training:
                model.seen += len(named["input_ids"])

        backbone.model.register_buffer("seen", torch.zeros(()))
        backbone.model.register_forward_pre_hook(count, with_kwargs=True)
        return attach(file, backbone, *rest)

    def running(self):
        position = run(self)
        seen.extend(float(b) for n, b in self.model.named_buffers() if n.endswith("seen"))
        return position

    attachment.attach, Loop.run = counting, running


def full_disk():
    from graftlab.training import checkpoint

    def save(*arguments):
        raise OSError(28, "No space left on device")

    checkpoint.files.save_tensors = save
