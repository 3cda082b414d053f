"""Options that commands share, and how they print."""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.terminal import say, say_json

if TYPE_CHECKING:
    from graftlab.workers import Crew

WIDEST = 24  # of a first column

File = Annotated[str, typer.Argument(metavar="FILE", help="A run file, or the name of a recipe.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Step = Annotated[
    int | None,
    typer.Option(
        "--step", metavar="N", min=0, help="The model as it was at a step whose checkpoint is kept."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set one key, as in training.epochs=1, or with @FILE those of a file; wins over the file.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def _allow_code(context: typer.Context, wanted: bool) -> bool:
    """Let functions of other packages be called until the command ends."""
    from graftlab.data import foreign_code

    context.with_resource(foreign_code.allowed(wanted))
    return wanted


AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        callback=_allow_code,
        help="Let code run that a file asks for: by task.source, by task.execute_code.",
    ),
]

Heartbeat = Annotated[
    float,
    typer.Option(
        "--heartbeat",
        metavar="SECONDS",
        help="Between signs of life: a process of another machine is given up after six that do not come.",
    ),
]

On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ray",
        help="Have the runs carried out by a Ray cluster that is there already.",
    ),
]
Needs = Annotated[
    list[str] | None,
    typer.Option(
        "--needs",
        metavar="KEY=NUMBER",
        help="What one run takes of the cluster, as in CPU=4 or GPU=0.5; CPU=1 unless given.",
    ),
]
BEAT_S = 20.0


@contextlib.contextmanager
def going_on(again: list[str]) -> Iterator[None]:
    """Have a Ctrl-C inside, at whatever moment, say by which command is gone on: `again` as it is by then.

    Raises:
        Stopped: there was one.
    """
    try:
        yield
    except KeyboardInterrupt:
        import signal

        from graftlab.errors import Stopped
        from graftlab.training.signals import EXIT_CODES

        how = " ".join(again)
        said = f"interrupted; what is finished is not repeated; go on with: {how}"
        raise Stopped(said, EXIT_CODES[signal.SIGINT]) from None


@dataclass(frozen=True)
class Crewing:
    """Options that say who carries out runs, as they were given."""

    workers: int | None
    on: str | None
    needs: Sequence[str]
    heartbeat: float
    share: bool = False

    def crew(self) -> "Crew":
        """Return the crew. `Raises:` ConfigError: an option is wrong, or does not go with another."""
        from graftlab.errors import Argument, ConfigError, Place
        from graftlab.workers import Crew

        found: dict[str, float] = {}
        for given in self.needs:
            name, _, number = given.partition("=")
            place = Place(argument=Argument("needs", given))
            try:
                found[name] = float(number)
            except ValueError:
                raise ConfigError(
                    "write KEY=NUMBER, as in CPU=4.", place=place, kind="syntax"
                ) from None
            if not name or not 0 <= found[name] < float("inf"):
                raise ConfigError("a number of 0 or more is wanted.", place=place, given=given)
        return Crew(self.workers, self.share, self.on, found, self.heartbeat)

    def again(
        self, command: str, file: str, overrides: Sequence[str], allow_code: bool, out: Path | None
    ) -> list[str]:
        """Return the command that goes on with a study or a search, word by word."""
        return [
            f"graftlab {command}",
            shlex.quote(file),
            *(f"--set {shlex.quote(override)}" for override in overrides),
            *(["--allow-code"] if allow_code else []),
            *self._words(),
            *(["--out", shlex.quote(str(out))] if out else []),
        ]

    def _words(self) -> list[str]:
        words = ["--workers", str(self.workers)] if self.workers else []
        words += ["--share"] if self.share else []
        words += ["--on", self.on] if self.on else []
        words += [word for need in self.needs for word in ("--needs", shlex.quote(need))]
        return words + (["--heartbeat", f"{self.heartbeat:g}"] if self.heartbeat != BEAT_S else [])


def emit(value: object, as_json: bool, text: str) -> None:
    """Print `value` as JSON, or `text`."""
    if as_json:
        say_json(value)
    else:
        say(text)


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Return two columns as lines; a long name has a line of its own."""
    width = max((len(name) for name, _ in rows if len(name) <= WIDEST), default=0)
    lines = []
    for name, text in rows:
        space = f"\n{'':{width + 4}}" if text and len(name) > width else "  "
        lines.append(f"  {name:<{width}}{space}{text}".rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return seconds as a reader says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
