"""Run a study file's methods, tasks and seeds, and compare them."""

import shlex
from pathlib import Path
from typing import Annotated

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


def command(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A study file, or the name of a recipe.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set one key, as in base.training.epochs=1; wins over the file.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The study's directory; else paths.runs/name."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Runs that go on at the same time."),
    ] = None,
    on: On = None,
    needs: Needs = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share",
            help="Share the runs with other processes of this command, on any machine that sees DIR.",
        ),
    ] = False,
    heartbeat: Heartbeat = BEAT_S,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Run a study file's methods, tasks and seeds, and compare them.

    Every combination is a run of its own; a finished one is not repeated, so the same command goes on
    with a study that was stopped. One that fails leaves a hole in the table, and exit code 10.
    With --share each run is carried out by one of the processes, and all end with the whole table.
    Finished runs that are reported are asked in the end what they have forgotten (`forgetting` in the file).
    """
    crewing = Crewing(workers, on, needs or (), heartbeat, share)
    again = crewing.again("compare", file, overrides or (), allow_code, out)
    with going_on(again):
        from graftlab import study
        from graftlab.commands._comparison import report
        from graftlab.inference import forgetting
        from graftlab.planning import budget
        from graftlab.rundir import files
        from graftlab.search import tuned as tuning
        from graftlab.study import whole_file

        crew = crewing.crew()
        plan = study.read(file, overrides or (), allow_code)
        searches = tuning.searches(plan) if plan.study.tune is not None else {}
        if plan.study.budget is not None:
            wanted = plan.study.budget
            groups = [*plan.files_by_group(), *tuning.files_by_group(searches)]
            for group in groups:
                budget.check(group, wanted.equal, wanted.within, plan.budget_place)
        where = study.place(plan, out)
        again += [] if out else ["--out", shlex.quote(str(where))]
        how = " ".join(again)
        tuned = tuning.carry_out(plan, where, crew, as_json, how) if searches else None
        runs = tuned.plan if tuned else plan
        done = study.carry_out(runs, where, as_json, how, crew=crew) if runs.runs else []
        asked = forgetting.Measured({}, {}, None)
        with study.writing(where):
            files.write_text(where / whole_file.FILE, whole_file.text(plan))
            if runs.forgetting is not None:
                reported = [run.folder for run in study.reported(runs, done)]
                asked = forgetting.measure_all(reported, runs.forgetting, quiet=as_json)
        causes = asked.causes
        found = tuned.compare(done, causes) if tuned else study.compare(plan, done, causes)
        try:
            report([(where, found)], as_json)
        finally:
            if asked.bug is not None:
                raise asked.bug  # seen with its traceback, once the tables are there
