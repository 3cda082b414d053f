"""How a run is seen while it trains: a bar on a terminal, plain lines elsewhere, and the run's log."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from graftlab.terminal import Stream, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

LINE_EVERY_S = 10.0  # plain lines are for files: seldom enough to be read
DRAW_EVERY_S = 0.2
FIGURES_WIDTH = 72  # columns that the figures beside a bar take
FORCED = {"FORCE_COLOR", "TTY_COMPATIBLE"}  # by which rich takes a pipe for a terminal


class _Shown(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))  # after the traceback is in it


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append what graftlab logs, from INFO on and with full tracebacks, to the file at `path`.

    Tokens are redacted. A disk that is full or gone costs lines of the log, not the run.
    """
    logger = logging.getLogger("graftlab")
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setLevel(logging.INFO)
    handler.setFormatter(_Shown("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    former = logger.level
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(former)
        handler.close()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Log nothing of graftlab's inside."""
    logger = logging.getLogger("graftlab")
    former = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(former)


def peak_memory() -> int:
    """Return the bytes held at most so far: of the GPU where one is in use, else of this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        devices = range(torch.cuda.device_count())
        return max(int(torch.cuda.max_memory_allocated(i)) for i in devices)
    try:
        import resource
    except ImportError:  # Windows has no such count
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tell(message: str, quiet: bool = False) -> None:
    """Show a line on the standard error, before there is a bar, and keep it in the log."""
    logging.getLogger("graftlab").info("%s", message)
    if not quiet:
        stream = Stream(sys.stderr)
        stream.write(shown(message) + "\n")
        stream.flush()


class Progress:
    """Shows where a run is. Nothing that happens to the stream stops the run."""

    def __init__(
        self, total_steps: int, start_step: int, quiet: bool = False, stream: IO[str] | None = None
    ) -> None:
        """`stream` is the standard error unless given: the standard output is for results."""
        self.total_steps, self.start_step, self.quiet = total_steps, start_step, quiet
        self._stream = Stream(stream or sys.stderr)
        self._began = time.monotonic()
        self._shown, self._last = -float("inf"), start_step
        self._loss: dict[str, float | None] = {}
        self._bar: Bar | None = None
        self._pending: tuple[int, str] | None = None
        if not quiet:
            console = _terminal(self._stream)
            if console is not None:
                self._bar = _bar(console)
                self._bar.add_task("", total=total_steps, completed=start_step, figures="")
                self._bar.start()

    def update(self, step: int, scalars: Mapping[str, float | None], examples: int) -> None:
        """Show a step; `scalars` may hold `loss` and `learning_rate`; `examples` were seen so far."""
        if self.quiet or step <= self.start_step:  # nothing has been trained yet
            return
        self._loss |= {k: v for k, v in scalars.items() if k in ("loss", "learning_rate")}
        if step == self._last and not self._bar:  # a line that stands there already
            return
        self._pending = step, self._figures(step, examples)
        if time.monotonic() - self._shown >= (DRAW_EVERY_S if self._bar else LINE_EVERY_S):
            self._show()

    def note(self, message: str) -> None:
        """Show a line of its own, above the bar."""
        if self.quiet:
            return
        if self._bar:
            self._bar.console.print(shown(message), markup=False, highlight=False)
        else:
            self._stream.write(shown(message) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Show the last step, and leave the terminal as it was; further calls do nothing."""
        self._show()
        if self._bar:
            self._bar.stop()
        self.quiet, self._bar = True, None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _show(self) -> None:
        if self._pending is None:
            return
        (step, figures), self._pending = self._pending, None
        self._shown, self._last = time.monotonic(), step
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=step, figures=figures, refresh=True)
        else:
            self._stream.write(f"step {step}/{self.total_steps} {figures}\n")
            self._stream.flush()

    def _figures(self, step: int, examples: int) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        done = step - self.start_step
        # The examples of the steps before a resume are not of this process.
        speed = examples * done / step / seconds
        loss, rate = self._loss.get("loss"), self._loss.get("learning_rate")
        parts = [
            f"loss {loss:.4f}" if loss is not None else "loss -",
            f"lr {rate:.1e}" if rate is not None else "",
            f"{speed:.{0 if speed >= 100 else 1}f} examples/s",
            f"{peak_memory() / 2**30:.2f} GiB",
            f"{_clock(seconds / done * (self.total_steps - step))} left",
        ]
        return " ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _terminal(stream: Stream) -> "Console | None":
    """Return a console where a bar can be drawn; None for files, pipes, notebooks, dumb terminals."""
    if not stream.isatty() and not os.environ.keys() & FORCED:
        return None  # without rich, whose import takes a moment
    from rich.console import Console

    console = Console(file=stream)  # type: ignore[arg-type]  # what rich calls of a file is there
    plain = not console.is_terminal or console.is_dumb_terminal or console.is_jupyter
    return None if plain else console


def _bar(console: "Console") -> "Bar":
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    text = "{task.completed:.0f}/{task.total:.0f} {task.fields[figures]}"
    width = min(console.width - FIGURES_WIDTH, 30)
    return Bar(
        *([BarColumn(bar_width=width)] if width >= 5 else []),  # figures first, if room is short
        TextColumn(text, markup=False),
        console=console,
        auto_refresh=False,  # no thread of its own: a broken pipe would raise there
        redirect_stdout=sys.stdout.isatty(),  # prints go above the bar, but a pipe stays a pipe
    )
