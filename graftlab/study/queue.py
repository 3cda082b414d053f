"""A study carried out: each run once, whatever happened before; one that fails does not stop the others."""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from graftlab.study.comparison import choices, chosen_at
from graftlab.study.design import Plan, Planned
from graftlab.study.labels import Cell
from graftlab.study.records import SHARED, Done
from graftlab.terminal import tell
from graftlab.workers import Orders, Slot, Stop, preload, shares
from graftlab.workers import carry_out as in_a_process
from graftlab.workers.slots import Pool

log = logging.getLogger("graftlab")


def place(plan: Plan, out: Path | None) -> Path:
    """Return the study's directory: `out`, or its name below paths.runs."""
    return out or plan.runs[0].file.paths.runs / plan.name


def carry_out(
    plan: Plan,
    out: Path,
    quiet: bool = False,
    again: str = "the same call",
    modules: Sequence[str] = (),
    workers: int = 1,
) -> list[Done]:
    """Return every run of the plan, finished or with the cause why it is not.

    A finished run of the same config is not repeated, an unfinished one is gone on with. With
    `choose.seeds: first`, only the chosen settings run at the other seeds. `again` is the command that
    goes on with a study that was stopped; `modules` are some that the runs import beside those that every
    run does: they are then imported once. `workers` runs go on at a time, each with its share of the cores
    and GPUs; the times of such runs are not compared.

    Raises:
        ConfigError: another process carries out this study.
        Stopped: a signal came; what was under way has been saved.
        Refused: a function of another package makes the rows of a run, and the plan does not allow it.
    """
    with foreign_code.allowed(plan.allow_code):
        for run in plan.runs:
            material.check_code(run.file)
        work = _Work(out / "runs", quiet, again, shares(workers))
        preload(modules)
        return _carry_out(plan, out, work)


def _carry_out(plan: Plan, out: Path, work: "_Work") -> list[Done]:
    with Run(out).lock():
        work.look()
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
    path = out / overview.PLAN
    if not path.is_file() or path.read_text(encoding="utf-8") != files.dump_json(listed):
        files.write_json(path, listed)


class _Work:
    """The runs of one study, one after another, or as many at a time as there are slots."""

    def __init__(self, folder: Path, quiet: bool, again: str, slots: list[Slot]) -> None:
        self.folder, self.quiet, self.slots = folder, quiet, slots
        self.allow_code = foreign_code.is_allowed()  # which threads would not know
        self.how = f"what is finished is not repeated; go on with: {again}"
        self.stop = Stop()
        self.there: dict[str, Path] = {}
        self.said: set[str] = set()
        self.taken: set[Path] = set()

    def look(self) -> None:
        """See which runs are there already."""
        self.there = _there(self.folder)

    def do(self, runs: Sequence[Planned]) -> list[Done]:
        pool = Pool(self.slots)

        def one(number: int, planned: Planned) -> Done | None:
            with pool.lent() as slot:
                if self.stop.received is not None:
                    return None
                return self._one(planned, f"{number}/{len(runs)}", slot)

        with self.stop.caught(), ThreadPoolExecutor(len(self.slots)) as threads:
            self.stop.check(self.how)
            waiting = [threads.submit(one, n, run) for n, run in enumerate(runs, start=1)]
            done = [found.result() for found in waiting]
            self.stop.check(self.how)
        return [found for found in done if found is not None]

    def _one(self, planned: Planned, number: str, slot: Slot) -> Done:
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
        quiet = self.quiet or len(self.slots) > 1
        orders = Orders(quiet, self.allow_code, slot=slot, compared=True)
        ended = in_a_process(folder, document, orders, self.stop)
        for message in ended.warnings:
            if message not in self.said:
                self.said.add(message)
                log.warning("%s: %s", planned.name, message)
        if ended.cause and self.stop.received is None:
            log.warning("%s is not finished: %s", planned.name, ended.cause)
        if len(self.slots) > 1 and not ended.cause:
            self._say(number, planned, "finished")
        if len(self.slots) > 1 and ended.cause is None:
            (folder / SHARED).touch()
        return Done.of(planned, folder, ended.cause)

    def _free(self, name: str) -> Path:
        """Return a folder where nothing of worth is: another config may have been run under the name."""
        path, number = self.folder / name, 1
        while path in self.taken or not where_runs_go.is_free(Run(path)):
            number += 1
            path = self.folder / f"{name}-{number}"
        self.taken.add(path)
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
