"""A hook of the tests: it lets things go wrong in the steps that are named, and says what it has seen."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from graftlab.config import Section
from graftlab.contracts import Hook, Setting, Training

OBSERVES = False


class Config(Section):
    """What goes wrong, and where."""

    spoil: Literal["logits", "gradients", "evaluation"] | None = None
    values: dict[int, str] = {}  # noqa: RUF012
    """By step: what is added to the logits of class 0, or what gradients are multiplied by; nan, inf, ..."""
    room: int | None = None
    """Examples above which a forward pass in training runs out of memory."""
    error: str = "CUDA out of memory. Tried to allocate 2 GiB"
    """What it says then; CUDA's is torch's own error, others are of the runtime."""
    stop: int = 0
    """In this step the process is told to end."""


def make(config: Config, setting: Setting) -> Hook:
    return Probe(config)


@contextmanager
def installed(folder: Path, monkeypatch: Any) -> Iterator[None]:
    """Let run files name it, as a package's entry point does."""
    record = folder / "probe-1.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
    (record / "entry_points.txt").write_text("[graftlab.hooks]\nprobe = probe\n")
    with monkeypatch.context() as during:
        during.syspath_prepend(folder)
        yield


class Probe(Hook):
    def __init__(self, config: Config) -> None:
        self.config, self.now = config, 0
        self.seen: dict[str, list[int]] = {"started": [], "sizes": []}

    def on_train_start(self, training: Training) -> None:
        self.training = training
        model = training.model
        self.handles = [
            model.register_forward_pre_hook(self.enter, with_kwargs=True),
            model.register_forward_hook(self.leave),
        ]

    def enter(self, model: Any, given: Any, named: Any) -> None:
        """Run out of memory, if that is asked for."""
        import torch

        if not model.training:
            return
        self.seen["sizes"].append(len(named["input_ids"]))
        if self.config.room is not None and self.seen["sizes"][-1] > self.config.room:
            kind = torch.OutOfMemoryError if "CUDA" in self.config.error else RuntimeError
            raise kind(self.config.error)

    def leave(self, model: Any, given: Any, output: Any) -> None:
        """Spoil what the model returns."""
        wanted = "logits" if model.training else "evaluation"
        if self.config.spoil == wanted and self.now in self.config.values:
            output.logits[..., 0] += float(self.config.values[self.now])

    def on_step_start(self, step: int) -> None:
        self.now = step
        self.seen["started"].append(step)
        if step == self.config.stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def before_optimizer_step(self, step: int) -> dict[str, float]:
        if self.config.spoil == "gradients" and step in self.config.values:
            for group in self.training.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad *= float(self.config.values[step])
        return {}

    def facts(self) -> dict[str, Any]:
        return dict(self.seen)

    def on_train_end(self) -> None:
        for handle in self.handles:
            handle.remove()
