"""Begin a run file of one's own: a commented recipe, or one drafted from data or another program's file."""

import os
from pathlib import Path
from typing import Annotated

import typer

from graftlab.commands._options import Json, aligned, emit

GIVEN = ".yaml"


def command(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help="As `graftlab list recipes` has them: template."),
    ] = None,
    origins: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Data (CSV, JSONL, Parquet, chats, a folder of images), or a file of axolotl, "
            "LLaMA-Factory, PEFT or transformers; several are laid together.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to; named after the origin unless given."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Begin a run file of one's own. Never overwrites.

    A recipe is copied with its comments. From data, or from the files of other programs, a commented run file
    is written that passes `graftlab check`; what could not be carried over stands there as comments.
    """
    from graftlab.errors import ConfigError

    if origins and recipe is not None:
        raise ConfigError("a recipe is copied, or a file drafted --from another: give one of them.")
    if origins:
        _draft(origins, out, as_json)
    elif recipe is not None:
        _copy(recipe, out, as_json)
    else:
        raise ConfigError(
            "name a recipe (graftlab init template), or data: graftlab init --from reviews.csv.",
            kind="missing",
        )


def _copy(recipe: str, out: Path | None, as_json: bool) -> None:
    from graftlab.config import recipes
    from graftlab.errors import ConfigError, unknown

    known = recipes()
    if recipe not in known:
        hint = f" For a file of yours: --from {recipe}." if Path(recipe).exists() else ""
        raise ConfigError(
            unknown("recipe", recipe, known) + hint,
            kind="unknown",
            given=recipe,
            allowed=sorted(known),
        )
    target = _target(out, known[recipe].name)
    _write(target, known[recipe].read_text(encoding="utf-8"))
    emit(
        {"file": str(target)}, as_json, f"{target} is yours: edit it, then graftlab check {target}"
    )


def _draft(origins: list[Path], out: Path | None, as_json: bool) -> None:
    from graftlab import drafts
    from graftlab.drafts.settled import settle

    read = [drafts.read(origin) for origin in origins]
    target = _target(out, f"{read[0].name}{GIVEN}")
    _refuse_taken(target)
    settled = settle(drafts.together(read), target)
    _write(target, settled.text)
    lines = [f"{target} is yours, from {', '.join(map(str, origins))}"]
    guesses = settled.draft.guesses
    if not guesses:
        lines[0] += f": {read[0].what}"
    else:
        model = settled.draft.values["backbone"]["model"]
        lines += ["guessed:", aligned([*guesses.items(), ("model", f"{model}, a small one")])]
    if settled.draft.left:
        lines.append(
            f"not carried over, and there as comments: {', '.join(o.key for o in settled.draft.left)}"
        )
    if settled.problems:
        lines += [
            "what is left to do, as graftlab check says:",
            *(f"  {p.words()}" for p in settled.problems),
        ]
    else:
        lines.append(f"next: graftlab check {target}, then graftlab run {target}")
    found = {
        "file": str(target),
        "ok": not settled.problems,
        "guesses": dict(guesses),
        "left": [
            {"key": one.key, "value": one.value, "why": one.why} for one in settled.draft.left
        ],
        "problems": [problem.as_json() for problem in settled.problems],
    }
    emit(found, as_json, "\n".join(lines))


def _target(out: Path | None, name: str) -> Path:
    target = out or Path(name)
    return target / name if target.is_dir() else target


def _refuse_taken(target: Path) -> None:
    from graftlab.errors import ConfigError

    if os.path.lexists(target):
        raise ConfigError(f"{target} exists already. Name another file with --out.", kind="taken")


def _write(target: Path, text: str) -> None:
    from graftlab.errors import DiskError

    _refuse_taken(target)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise DiskError(f"cannot write {target}: {error}. Name another file with --out.") from error
