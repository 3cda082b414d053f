"""A study carried out: each run once, whatever happened before; one that fails does not stop the others."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from graftlab import config
from graftlab.data import foreign_code
from graftlab.errors import CheckpointError, ConfigError
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs import found_labels, material, overview, status
from graftlab.runs import place as where_runs_go
from graftlab.runs.identity import HARMLESS
from graftlab.study import child
from graftlab.study.comparison import choices, chosen_at
from graftlab.study.design import Cell, Plan, Planned
from graftlab.study.records import Done
from graftlab.terminal import tell

log = logging.getLogger("graftlab")


def place(plan: Plan, out: Path | None) -> Path:
    """Return the study's directory: `out`, or its name below paths.runs."""
    return out or plan.runs[0].file.paths.runs / plan.name


def carry_out(
    plan: Plan,
    out: Path,
    quiet: bool = False,
    again: str = "the same call",
    preload: Sequence[str] = (),
) -> list[Done]:
    """Return every run of the plan, finished or with the cause why it is not.

    A finished run of the same config is not repeated, an unfinished one is gone on with. With
    `choose.seeds: first`, only the chosen settings run at the other seeds. `again` is the command that
    goes on with a study that was stopped; `preload` are modules that the runs import,
    beside those that every run does: they are then imported once.

    Raises:
        ConfigError: another process carries out this study.
        Stopped: a signal came; what was under way has been saved.
        Refused: a function of another package makes the rows of a run, and the plan does not allow it.
    """
    with foreign_code.allowed(plan.allow_code):
        for run in plan.runs:
            material.check_code(run.file)
        return _carry_out(plan, out, quiet, again, preload)


def _carry_out(
    plan: Plan, out: Path, quiet: bool, again: str, preload: Sequence[str]
) -> list[Done]:
    child.FORKS.set_forkserver_preload([*child.PRELOADED, *preload])
    with Run(out).lock():
        work = _Work(out / "runs", quiet, again)
        choose = plan.study.choose
        if choose is None or choose.seeds == "all":
            _announce(out, plan.runs)
            return work.do(plan.runs)
        first = chosen_at(choose, plan.seeds)
        at_first = [run for run in plan.runs if run.seed in first]
        _announce(out, at_first)
        done = work.do(at_first)
        cells: dict[Cell, list[Done]] = {}
        for run in done:
            cells.setdefault(run.planned.cell, []).append(run)
        chosen = choices(cells, choose, plan.seeds)
        rest = [run for run in plan.runs if run.seed not in first and run.cell in chosen]
        _announce(out, [*at_first, *rest])
        return done + work.do(rest)


def _announce(out: Path, runs: Sequence[Planned]) -> None:
    """Write which runs the study asks for, so that those that wait can be seen."""
    listed = [{"run": run.name, **status.named(run.file.resolved)} for run in runs]
    files.write_json(out / overview.PLAN, listed)


class _Work:
    """The runs of one study, one after another."""

    def __init__(self, folder: Path, quiet: bool, again: str) -> None:
        self.folder, self.quiet = folder, quiet
        self.how = f"what is finished is not repeated; go on with: {again}"
        self.stop = child.Stop()
        self.there = _there(folder)
        self.said: set[str] = set()

    def do(self, runs: Sequence[Planned]) -> list[Done]:
        done = []
        with self.stop.caught():
            for number, planned in enumerate(runs, start=1):
                self.stop.check(self.how)
                done.append(self._one(planned, f"{number}/{len(runs)}"))
                self.stop.check(self.how)
        return done

    def _one(self, planned: Planned, number: str) -> Done:
        folder = self.there.get(_identity(planned.file.resolved))
        if folder is not None and Run(folder).finished:
            self._say(number, planned, "finished before")
            return Done.of(planned, folder)
        if folder is None:
            folder, document = self._free(planned.name), planned.document
            self._say(number, planned, "")
        else:
            document = None
            self._say(number, planned, "going on")
        ended = child.carry_out(folder, document, self.quiet, self.stop)
        for message in ended.warnings:
            if message not in self.said:
                self.said.add(message)
                log.warning("%s: %s", planned.name, message)
        if ended.cause and self.stop.received is None:
            log.warning("%s is not finished: %s", planned.name, ended.cause)
        return Done.of(planned, folder, ended.cause)

    def _free(self, name: str) -> Path:
        """Return a folder where nothing of worth is: another config may have been run under the name."""
        path, number = self.folder / name, 1
        while not where_runs_go.is_free(Run(path)):
            number += 1
            path = self.folder / f"{name}-{number}"
        return path

    def _say(self, number: str, planned: Planned, what: str) -> None:
        if not self.quiet:
            text = f"[{number}] {planned.name}" + (f": {what}" if what else "")
            tell(text)


def _there(folder: Path) -> dict[str, Path]:
    """Return the runs that a folder holds, by what they compute."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*/config.yaml")):
        try:
            Run(path.parent).check(path.name)
            identity = _identity(found_labels.without(config.read_yaml(path), Run(path.parent)))
        except (CheckpointError, ConfigError) as error:
            log.warning("a run is left aside: %s", error)
            continue
        known = found.get(identity)
        if known is None or not Run(known).finished:
            found[identity] = path.parent
    return found


def _identity(resolved: dict[str, Any], without: Iterable[str] = HARMLESS) -> str:
    """Return a resolved config as text, without what changes no result."""
    kept = dict(resolved)
    for key in without:
        section, _, inner = key.partition(".")
        if not inner:
            kept.pop(section, None)
        elif section in kept:
            kept[section] = {k: v for k, v in kept[section].items() if k != inner}
    return config.dump(kept)
