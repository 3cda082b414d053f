"""Search for settings: over any fields of a run file, by trials that train."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftlab.commands._options import (
    BEAT_S,
    AllowCode,
    Crewing,
    Heartbeat,
    Json,
    Needs,
    On,
    going_on,
)
from graftlab.terminal import say, say_json

if TYPE_CHECKING:
    from graftlab.search import Found
    from graftlab.search.winner import Summary

PAGE = "search.html"
"""What the page is called in the search's directory."""


def command(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A search file, or the name of a recipe.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set one key, as in trials=50 or base.training.epochs=1; wins over the file.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The search's directory; else paths.runs/name."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Trials that go on at the same time."),
    ] = None,
    on: On = None,
    needs: Needs = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="A database that several machines share; else $GRAFTLAB_STORAGE, else a journal in DIR.",
        ),
    ] = None,
    heartbeat: Heartbeat = BEAT_S,
    widen: Annotated[
        bool, typer.Option("--widen", help="Go on with a search whose ranges have grown.")
    ] = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Search for settings over any fields of a run file, by trials that really train.

    A trial that ends is not repeated and one that was stopped or killed goes on from its checkpoint, so the
    same command goes on with a search. Test is not looked at; with winner.seeds the best trial and the base
    run at fresh seeds, and are compared on test.
    """
    crewing = Crewing(workers, on, needs or (), heartbeat)
    again = crewing.again("tune", file, overrides or (), allow_code, out)
    with going_on(again):
        again += storage_words(storage)
        from graftlab import search, study
        from graftlab.rundir import files
        from graftlab.search import storage as storages
        from graftlab.search import whole_file, winner

        crew = crewing.crew()
        plan = search.read(file, overrides or (), allow_code)
        where = search.place(plan, out)
        again += [] if out else ["--out", shlex.quote(str(where))]
        how = " ".join(again)
        database = storages.url(storage)
        found = search.carry_out(plan, where, database, crew, as_json, widen, how)
        said = search.write(found)
        files.write_text(where / whole_file.FILE, whole_file.text(plan))
        figures = _draw(found)
        _write_page(where)
        confirmed = None
        if said.best is not None and plan.search.winner.seeds:
            confirmed = search.confirm(found, crew, as_json, how)
            study.write(confirmed, where / "confirmed")
            _write_page(where)  # which then names the study
        if as_json:
            shown: dict[str, Any] = winner.as_json(found, said)
            shown |= {"figures": [str(figure) for figure in figures], "page": str(where / PAGE)}
            if confirmed is not None:
                shown["confirmed"] = study.as_json(confirmed)
            say_json(shown)
            return
        _show(found, said)
        if confirmed is not None:
            from graftlab.commands._comparison import report

            report([(where / "confirmed", confirmed)], as_json)
        say(
            f"The page is {where / PAGE}; trials.csv, summary.json, figures"
            + (", best.yaml are beside it." if said.best else " are beside it.")
        )


def storage_words(given: str | None) -> list[str]:
    """Return the option that finds the same storage again; a URL's password, and its query, are not in it."""
    import os

    from graftlab.search import storage

    if not given:
        known = os.environ.get(storage.VARIABLE)
        return ["--storage", f'"${storage.VARIABLE}"'] if known else []
    return ["--storage", shlex.quote(storage.shown(given))]


def _write_page(where: Path) -> None:
    from graftlab import report
    from graftlab.rundir import files

    files.write_text(where / PAGE, report.html(where, {}))


def _draw(found: "Found") -> list[Path]:
    from graftlab import plots, registry
    from graftlab.contracts.plot import SEARCH
    from graftlab.search.drawn import searched

    drawn = registry.having("plots", "DRAWS_FROM", SEARCH)
    return plots.draw(drawn, searched(found), found.plan.name, found.out)


def _show(found: "Found", said: "Summary") -> None:
    counts = ", ".join(f"{count} {state}" for state, count in said.counts.items())
    say(f"{found.plan.name}: {len(found.trials)} trials ({counts})")
    one = found.objectives[0]
    if said.best is not None:
        say(f"best {one.name} on validation: {said.best.value:.4g} (trial {said.best.number})")
        for key, value in said.best.params.items():
            edge = (
                f"   at the {said.edges[key]} value allowed: widen it" if key in said.edges else ""
            )
            say(
                f"  {key}: {value:.4g}{edge}"
                if isinstance(value, float)
                else f"  {key}: {value}{edge}"
            )
        if said.default is not None:
            say(f"{one.name} of the base's own settings: {said.default:.4g}")
    for trial in said.front:
        scores = ", ".join(
            f"{o.name} {v:.4g}" for o, v in zip(found.objectives, trial.values, strict=True)
        )
        say(f"  trial {trial.number}: {scores}")
    if said.expected:
        some = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= len(said.expected)]
        curve = ", ".join(f"{n}: {said.expected[n - 1]:.4g}" for n in some)
        say(f"expected best {one.name} after so many trials: {curve}")
    for cause, count in said.causes.items():
        say(f"{count} failed: {cause}")
