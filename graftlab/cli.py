"""The command line: `graftlab COMMAND`. Only the command that is asked for is imported.

A command is one file, `graftlab/commands/<name>.py` (or an entry point of `graftlab.commands`), with
a docstring whose first line is its line in `graftlab --help`, and a function `command`:

    from graftlab.commands._options import File, Json, Overrides, emit

    def command(file: File, overrides: Overrides = None, as_json: Json = False) -> None:
        \"\"\"What `graftlab <name> --help` says.\"\"\"
        from graftlab.runs.session import run  # heavy imports stand inside
        result = run(...)
        emit(result, as_json, text)              # one JSON object, or text, on stdout

Errors are raised, not printed: a GraftlabError becomes one message on stderr (with --json an object
on stdout) and its exit code. Warnings of the logger `graftlab` reach stderr.
"""

import atexit
import gc
import io
import logging
import shlex
import sys
import traceback
import warnings
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

import graftlab
from graftlab import registry
from graftlab.errors import LOGGED, Argument, ConfigError, DiskError, GraftlabError, nearest
from graftlab.rundir import limits
from graftlab.terminal import open_standard, say, say_json, shown, tell
from graftlab.training.parallel import launch

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
UNEXPECTED = 1
OPTIONS = {
    **{"overrides": "set", "probed": "probe", "origins": "from"},
    **{"tasks": "harness", "folder": "harness-tasks"},
}
"""Arguments whose option has another name."""
SPELLINGS = {"analyze": "analyse"}
"""Commands whose name is spelled in two ways."""
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Commands(TyperGroup):
    """A group whose commands are modules, imported when they are called."""

    def list_commands(self, ctx: object) -> list[str]:
        return registry.names("commands")

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | None:
        if cmd_name not in registry.names("commands"):
            return None
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(cmd_name)(registry.find("commands", cmd_name).command)
        command = typer.main.get_command(app)
        assert isinstance(command, TyperCommand)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = registry.names("commands")
        args = [SPELLINGS.get(args[0], args[0]), *args[1:]] if args else args
        if args and not args[0].startswith("-") and args[0] not in known:
            close = nearest(args[0], known)
            hint = f" Did you mean {close!r}?" if close else ""
            ctx.fail(f"unknown command {args[0]!r}.{hint} Known: {', '.join(known)}.")
        if args and (reason := launch.only_one(args[0])):
            raise ConfigError(reason)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: object, formatter: Any) -> None:
        """List the commands by their docstrings, without importing them."""
        rows = [(name, registry.describe("commands", name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = {"json": "--json" in args}
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GraftlabError as error:
            _refuse(limits.exceeded(error.__cause__ or error.__context__) or error, ctx.obj["json"])
        except KeyboardInterrupt:
            _fail("KeyboardInterrupt", "interrupted", INTERRUPTED, ctx.obj["json"])
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            usage = getattr(error, "format_message", None)  # click's own errors have it
            if usage is not None and ctx.obj["json"]:
                _fail("UsageError", usage(), 2, as_json=True)
            if usage is not None:
                vars(error)["message"] = shown(str(vars(error).get("message", "")))
                raise
            if short := limits.exceeded(error):
                _refuse(short, ctx.obj["json"])
            logged = [note for note in getattr(error, "__notes__", ()) if note.startswith(LOGGED)]
            if not logged:
                raise
            message = f"{type(error).__name__}: {error}. This is a bug. {logged[0]}"
            _fail(type(error).__name__, message, UNEXPECTED, ctx.obj["json"])


class Warnings(logging.Handler):
    """Shows warnings of graftlab, and its notes as what they are, on stderr: above a progress bar.

    Errors are left out: they are raised, and shown once by `_fail`. A note is said once: what it is about is
    read again by each stage.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.noted: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        said, word = record.getMessage(), getattr(record, "word", "warning")
        if record.levelno == logging.WARNING and said not in self.noted:
            self.noted |= {said} if word == "note" else set()
            tell(f"{word}: {said}")


def option(argument: Argument) -> str:
    """Spell an argument as the command line has it: `--out`, `--new`, `--override KEY`."""
    name = "--" + OPTIONS.get(argument.name, argument.name).replace("_", "-")
    if argument.value is None or argument.value is True:
        return name
    values = argument.value if isinstance(argument.value, tuple | list) else [argument.value]
    return " ".join(f"{name} {shlex.quote(str(value))}" for value in values)


def _refuse(error: GraftlabError, as_json: bool) -> NoReturn:
    problems = [problem.as_json(option) for problem in error.problems]
    words = error.words(option)
    _fail(type(error).__name__, words, error.exit_code, as_json, {"problems": problems})


def _fail(
    kind: str, message: str, exit_code: int, as_json: bool, more: Mapping[str, Any] = EMPTY
) -> NoReturn:
    if launch.said_elsewhere(exit_code):
        raise typer.Exit(exit_code)
    if as_json:
        error = {"type": kind, "message": message, "exit_code": exit_code, **more}
        say_json({"error": error})
    else:
        tell(f"graftlab: {message}")
    raise typer.Exit(exit_code)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"graftlab {graftlab.__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback(help="Train, compare and explain parameter-efficient adapters on frozen models.")
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options before a command."""


def _warn_once() -> None:
    """Show each warning of libraries once: whoever silences some makes Python forget what it has shown."""
    show, said = warnings.showwarning, set[tuple[type[Warning], str]]()

    def once(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if (told := (category, str(message))) not in said:
            said.add(told)
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = once


def main() -> None:
    """Run the command line; always ends in SystemExit."""
    # A process that ends looks for garbage among all that libraries hold, which takes a second: not here.
    atexit.register(gc.freeze)
    out = open_standard()
    sys.excepthook = _hook
    if launch.place().rank:
        sys.stdout = io.StringIO()  # results are shown once
    logging.getLogger("graftlab").addHandler(Warnings())
    _warn_once()
    try:
        typer.main.get_command(app)(prog_name="graftlab")
    except SystemExit as ended:
        out.flush()
        if out.error is not None and not ended.code:
            tell(
                f"graftlab: the standard output cannot be written: {out.error}. Write it elsewhere."
            )
            raise SystemExit(DiskError.exit_code) from None
        raise


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show what nobody has caught: its words may be of data."""
    tell("".join(traceback.format_exception(kind, error, trace)).rstrip())
