"""Trackers show a run elsewhere: TensorBoard, Weights & Biases, trackio. The run directory is the truth.

Each is served by a thread of its own, so that one that is slow, hangs or fails costs the run nothing:
it is warned of once, in the log, and left out from there on.
"""

import contextlib
import json
import logging
import math
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

from graftlab.config import Section
from graftlab.errors import missing_extra
from graftlab.training.progress import redact

logger = logging.getLogger(__name__)

Scalars = Mapping[str, float | None]
Name = Literal["tensorboard", "wandb", "trackio"]
PATIENCE_S = 30.0  # how long a finished run waits for its trackers, all together
MAX_WAITING = 10_000  # records a tracker may lag behind; a record is under a kilobyte


class Config(Section):
    """Where a run is shown besides its directory."""

    to: tuple[Name, ...] = ()
    """Trackers to send to: `tensorboard`, `wandb`, `trackio`. Local files are written always."""
    project: str = "graftlab"
    """Project there (W&B, trackio)."""
    name: str | None = None
    """The run's name there (W&B, trackio); its directory's name unless given."""
    tags: tuple[str, ...] = ()
    """Tags of the run there; trackio, which has none, keeps them in the run's config."""
    offline: bool = False
    """W&B keeps the run in its directory, to be sent later with `wandb sync`."""


def check(config: Config) -> list[str]:
    """Return what stands in the way of the named trackers, before anything is loaded."""
    return [
        missing_extra(f"tracking.to: {name}", name, name)
        for name in config.to
        if find_spec(name) is None
    ]


@dataclass(frozen=True)
class Start:
    """What trackers are told of a run when it begins."""

    folder: Path
    """The run directory."""
    config: Mapping[str, Any]
    """The resolved run file."""
    model: str
    """The model's structure as text."""
    facts: Mapping[str, Any]
    """`trainer_hash` (git commit of graftlab), `peft_hash`, the device and its memory."""
    first_step: int = 0
    """The step that the run goes on from; what was sent of later ones is replaced where possible."""


class Shown(NamedTuple):
    """A table with the pictures that go with it."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[float | str | None]]
    pictures: Sequence[Path]
    """PNG files, which stay where they are until the run ends."""

    def as_markdown(self) -> str:
        cells = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in cells)


def _cell(value: float | str | None) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


class Sink(Protocol):
    """One tracker, open. Any call may raise."""

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Take the scalars of a step."""

    def show(self, shown: "Shown") -> None:
        """Take a table and pictures, which belong to no step."""

    def close(self, result: dict[str, float]) -> None:
        """Take the run's final figures and end."""


class _TensorBoard:
    def __init__(self, start: Start, config: Config) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = start.first_step + 1 if start.first_step else None
        self.writer = SummaryWriter(str(start.folder / "tensorboard"), purge_step=purge)
        run_facts = {**start.facts, "tags": config.tags}
        for title, text in (
            ("config", json.dumps(start.config, indent=2, default=str)),
            ("facts", json.dumps(run_facts, indent=2, default=str)),
            ("model", start.model),
        ):
            code = "\n".join(f"    {line}" for line in text.splitlines())  # as Markdown has it
            self.writer.add_text(title, code, start.first_step)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

    def show(self, shown: Shown) -> None:
        import numpy as np
        from PIL import Image

        self.writer.add_text(shown.name, shown.as_markdown())
        for path in shown.pictures:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self.writer.add_image(f"{shown.name}/{path.stem}", pixels, dataformats="HWC")

    def close(self, result: dict[str, float]) -> None:
        for name, value in result.items():
            self.writer.add_scalar(f"result/{name}", value)
        self.writer.close()


class _WandB:
    def __init__(self, start: Start, config: Config) -> None:
        import wandb

        offline = config.offline or wandb.setup().settings.mode != "online"  # WANDB_MODE
        if not offline and not wandb.login(prompt=False):  # asking would take over the terminal
            raise RuntimeError("there is no key for W&B")
        folder = start.folder / "wandb"
        folder.mkdir(exist_ok=True)
        kept = folder / "id.txt"  # a resumed run goes on where it was
        if not kept.exists():
            kept.write_text(secrets.token_hex(4), encoding="utf-8")
        self.run = wandb.init(
            project=config.project,
            name=config.name or start.folder.name,
            tags=config.tags,
            dir=start.folder,
            id=kept.read_text(encoding="utf-8"),
            resume=None if offline else "allow",
            mode="offline" if config.offline else None,
            config={**start.config, **start.facts},
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, finish_timeout=PATIENCE_S
            ),
        )
        self.run.summary["model"] = start.model

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self.run.log(scalars, step=step)

    def show(self, shown: Shown) -> None:
        import wandb

        rows = [list(row) for row in shown.rows]
        table = {shown.name: wandb.Table(columns=list(shown.columns), data=rows)}
        pictures = {f"{shown.name}/{path.stem}": wandb.Image(str(path)) for path in shown.pictures}
        self.run.log({**table, **pictures}, commit=False)  # with the next step

    def close(self, result: dict[str, float]) -> None:
        self.run.summary.update(result)
        self.run.finish()


class _Trackio:
    def __init__(self, start: Start, config: Config) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):  # it prints; stdout is for the run's result
            self.run = trackio.init(
                project=config.project,
                name=config.name or start.folder.name,
                config={**start.config, **start.facts, "tags": config.tags, "model": start.model},
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self.run.log(scalars, step=step)

    def show(self, shown: Shown) -> None:
        import trackio

        rows = [list(row) for row in shown.rows]
        table = {shown.name: trackio.Table(columns=list(shown.columns), data=rows)}
        pictures = {
            f"{shown.name}/{path.stem}": trackio.Image(str(path)) for path in shown.pictures
        }
        with contextlib.redirect_stdout(sys.stderr):
            self.run.log({**table, **pictures})

    def close(self, result: dict[str, float]) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self.run.log({f"result/{name}": value for name, value in result.items()})
            self.run.finish()


OPENERS: dict[Name, Callable[[Start, Config], Sink]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "trackio": _Trackio,
}
REMEDIES: dict[Name, str] = {
    "tensorboard": "See whether the run directory can be written.",
    "wandb": "Set WANDB_API_KEY or run `wandb login`, or set tracking.offline: true.",
    "trackio": "See whether the folder TRACKIO_DIR can be written.",
}


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

    def finish(self, result: Mapping[str, Any]) -> None:
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


def _numbers(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested mappings under names such as `test/accuracy`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{before}{name}", float(value)
