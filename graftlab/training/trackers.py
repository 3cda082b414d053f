"""Trackers show a run elsewhere: TensorBoard, Weights & Biases, trackio. The run directory is the truth.

Each is served by a thread of its own, so that one that is slow, hangs or fails costs the run nothing:
it is warned of once, in the log, and left out from there on.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from graftlab.errors import (
    Fault,
    missing_extra,
    wrong,
)
from graftlab.terminal import redact
from graftlab.training.tracker_sinks import (
    OPENERS,
    PATIENCE_S,
    REMEDIES,
    Config,
    Name,
    Shown,
    Sink,
    Start,
)

__all__ = ["OPENERS", "Config", "Shown", "Start", "Trackers", "check"]

logger = logging.getLogger(__name__)

Scalars = Mapping[str, float | None]
MAX_WAITING = 10_000  # records a tracker may lag behind; a record is under a kilobyte


def check(config: Config) -> list[Fault]:
    """Return what stands in the way of the named trackers, before anything is loaded."""
    return [
        wrong("to", missing_extra(f"tracking.to: {name}", name, name), kind="not_installed")
        for name in config.to
        if find_spec(name) is None
    ]


class _Served:
    """One tracker with the thread that serves it."""

    def __init__(self, name: Name, start: Start, config: Config) -> None:
        self.name = name
        self.waiting: queue.Queue[Callable[[Sink], None]] = queue.Queue(MAX_WAITING)
        self.given_up = self.closed = False
        self.thread = threading.Thread(
            target=self._serve, args=(start, config), name=f"tracker-{name}", daemon=True
        )
        self.thread.start()

    def _serve(self, start: Start, config: Config) -> None:
        try:
            sink = OPENERS[self.name](start, config)
            while not self.closed:
                self.waiting.get()(sink)
        except Exception as error:  # whatever it is that a tracker raises, the run goes on
            self.give_up(f"{type(error).__name__}: {error}")

    def send(self, call: "Callable[[Sink], None]") -> None:
        """Have `call` made in the tracker's thread, after those sent before."""
        if self.given_up:
            return
        try:
            self.waiting.put_nowait(call)
        except queue.Full:
            self.give_up(f"it is {MAX_WAITING} records behind")

    def close(self, result: dict[str, float]) -> None:
        def end(sink: Sink) -> None:
            self.closed = True
            sink.close(result)

        self.send(end)

    def give_up(self, why: str) -> None:
        if not self.given_up:
            self.given_up = True
            logger.warning(
                "tracker %s is left out from here on; the run goes on and its own files are "
                "complete. %s. %s",
                self.name,
                redact(why).rstrip("."),
                REMEDIES[self.name],
            )


class Trackers:
    """The trackers of one run. No call raises or waits, but `finish`, which waits `patience_s`."""

    def __init__(self, config: Config, folder: Path, patience_s: float = PATIENCE_S) -> None:
        """`folder` is the run directory."""
        self.config, self.folder = config, folder
        self.patience_s = patience_s
        self._served: list[_Served] = []

    def start(self, facts: Mapping[str, Any], first_step: int = 0) -> None:
        """Open every tracker, in the background.

        `facts` are `config` (the resolved run file), `model` (its structure as text) and whatever
        else is known: `trainer_hash`, `peft_hash`, the device. `first_step` is the step that a
        resumed run goes on from.
        """
        others = {name: fact for name, fact in facts.items() if name not in ("config", "model")}
        start = Start(self.folder, facts["config"], facts["model"], others, first_step)
        self._served = [_Served(name, start, self.config) for name in dict.fromkeys(self.config.to)]

    def log(self, step: int, scalars: Scalars, examples: int = 0) -> None:
        """Send the scalars of a step; a None is a gap. `examples` are those seen so far, 0 unknown."""
        known = {name: float(value) for name, value in scalars.items() if value is not None}
        if examples:
            known["examples"] = float(examples)
        for served in self._served:
            served.send(lambda sink: sink.log(step, known))

    def show(self, shown: Shown) -> None:
        """Send a table and pictures."""
        for served in self._served:
            served.send(lambda sink: sink.show(shown))

    def finish(self, result: Mapping[str, object]) -> None:
        """Send the numbers of the result and close; further calls do nothing."""
        figures = dict(_numbers(result))
        for served in self._served:
            served.close(figures)
        deadline = time.monotonic() + self.patience_s
        for served in self._served:
            served.thread.join(max(0.0, deadline - time.monotonic()))
            if served.thread.is_alive():
                served.give_up(f"it has not ended after {self.patience_s:g} s")
        self._served = []

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish({})


def _numbers(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested mappings under names such as `test/accuracy`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{before}{name}", float(value)
