"""A study carried out: each run once, whatever happened before; one that fails does not stop the others."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from graftlab.data import foreign_code
from graftlab.errors import ConfigError
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runs import material, overview, status
from graftlab.study.beyond import at_seed, beyond, names
from graftlab.study.comparison import choices, chosen_at
from graftlab.study.design import Plan, Planned
from graftlab.study.folders import Folders
from graftlab.study.labels import Cell
from graftlab.study.records import SHARED, Done
from graftlab.study.section import Choose
from graftlab.terminal import tell
from graftlab.workers import (
    Crew,
    Ended,
    Engine,
    Orders,
    Slot,
    Stop,
    engine,
    preload,
    unwatched,
)
from graftlab.workers.board import Board
from graftlab.workers.claims import Claim, Claims
from graftlab.workers.presence import Presence

log = logging.getLogger("graftlab")
ALONE = Crew()
CLAIMS = "claims"
POLL_S = 1.0


def place(plan: Plan, out: Path | None) -> Path:
    """Return the study's directory: `out`, or its name below paths.runs."""
    return out or plan.runs[0].file.paths.runs / plan.name


def carry_out(
    plan: Plan,
    out: Path,
    quiet: bool = False,
    again: str = "the same call",
    modules: Sequence[str] = (),
    crew: Crew = ALONE,
) -> list[Done]:
    """Return every run of the plan, finished or with the cause why it is not.

    A finished run of the same config is not repeated, an unfinished one is gone on with. With
    `choose.seeds: first`, only the chosen settings run at the other seeds. `again` is the command that
    goes on with a study that was stopped; `modules` are some that the runs import beside those that every
    run does: they are then imported once. The `crew` says who carries out the runs; the times of runs that
    had no machine to themselves are not compared. With `crew.share` other processes, also of other machines,
    may do the same call: each run is carried out by one of them, and all return when all runs have ended.

    Raises:
        ConfigError: another process carries out this study, or the crew cannot be had.
        Stopped: a signal came; what was under way has been saved.
        Refused: a function of another package makes the rows of a run, and the plan does not allow it.
    """
    if plan.study.tune is not None:
        raise ConfigError(
            "this study tunes first: graftlab.search.tuned.carry_out.", kind="conflict"
        )
    with foreign_code.allowed(plan.allow_code):
        for run in plan.runs:
            material.check_code(run.file)
        preload(modules)
        with Run(out).lock(shared=crew.share), at_work(crew, out) as claims:
            found = engine(crew, out, len(plan.runs))
            work = _Work(out / "runs", quiet, again, found, claims)
            return _carry_out(plan, out, work)


@contextlib.contextmanager
def at_work(crew: Crew, out: Path) -> Iterator[Claims | None]:
    """Join the processes that carry out a study together, where there may be others."""
    if not crew.share:
        yield None
        return
    presence = Presence(out / "workers", crew.beat_s)
    with presence.at_work():
        yield Claims(out / CLAIMS, presence)


def writing(out: Path) -> AbstractContextManager[None]:
    """Wait until no other process writes a study's tables, where several carry it out."""
    shared = (out / CLAIMS).is_dir()
    return files.alone(out / CLAIMS / "writing") if shared else contextlib.nullcontext()


def _carry_out(plan: Plan, out: Path, work: "_Work") -> list[Done]:
    work.folders.look()
    choose = plan.study.choose
    if choose is None:
        _announce(out, plan.runs)
        return work.do(plan.runs)
    first = chosen_at(choose, plan.seeds)
    begun = [run for run in plan.runs if run.seed in first]
    _announce(out, begun)
    done = work.do(begun)
    while more := beyond(plan, done):
        begun += more
        _announce(out, begun)
        done += work.do(more)
    rest = _at_other_seeds(plan, choose, done)
    if rest:
        _announce(out, [*begun, *rest])
        done += work.do(rest)
    return done


def _at_other_seeds(plan: Plan, choose: Choose, done: Sequence[Done]) -> list[Planned]:
    """Return the chosen settings at the seeds that took no part in the choice."""
    cells: dict[Cell, list[Done]] = {}
    for run in done:
        cells.setdefault(run.planned.cell, []).append(run)
    chosen, first = choices(cells, choose, plan.seeds), chosen_at(choose, plan.seeds)
    seeds = [seed for seed in plan.seeds if seed not in first]
    asked = {run.cell for run in plan.runs}
    added = [cells[cell][0].planned for cell in cells if cell in chosen and cell not in asked]
    taken = names(plan, done)
    return [
        *(run for run in plan.runs if run.seed in seeds and run.cell in chosen),
        *(at_seed(plan, run, seed, taken) for run in added for seed in seeds),
    ]


def _announce(out: Path, runs: Sequence[Planned]) -> None:
    """Write which runs the study asks for, so that those that wait can be seen."""
    listed = [{"run": run.name, **status.named(run.file.resolved)} for run in runs]
    path = out / overview.PLAN
    with writing(out):
        if not path.is_file() or path.read_text(encoding="utf-8") != files.dump_json(listed):
            files.write_json(path, listed)


class _Left:
    """Runs that have not ended yet, by their numbers."""

    def __init__(self, runs: Sequence[Planned]) -> None:
        self.count = len(runs)
        self.runs = dict(enumerate(runs, start=1))
        self.done: dict[int, Done] = {}
        self.lock = threading.Lock()

    def end(self, number: int, done: Done) -> None:
        self.done[number] = done
        self.runs.pop(number, None)


class _Taken(NamedTuple):
    """A run that a thread carries out."""

    number: int
    planned: Planned
    claim: Claim | None


class _Work:
    """The runs of one study, as many at a time as there are slots."""

    def __init__(
        self, folder: Path, quiet: bool, again: str, found: Engine, claims: Claims | None
    ) -> None:
        self.quiet, self.engine, self.claims = quiet, found, claims
        self.allow_code = foreign_code.is_allowed()  # which threads would not know
        self.how = f"what is finished is not repeated; go on with: {again}"
        self.stop = Stop()
        self.folders, self.board = Folders(folder), Board(found.slots)
        self.said: set[str] = set()

    def do(self, runs: Sequence[Planned]) -> list[Done]:
        left = _Left(runs)
        slots = self.engine.slots[: max(1, len(runs))]
        with (
            self.stop.caught(),
            self.board.shown(self.quiet),
            ThreadPoolExecutor(len(slots)) as threads,
        ):
            self.stop.check(self.how)
            for ended in [threads.submit(self._work, left, slot) for slot in slots]:
                ended.result()
            self.stop.check(self.how)
        return [left.done[number] for number in sorted(left.done)]

    def _work(self, left: _Left, slot: Slot) -> None:
        """Carry out runs in one slot until all have ended."""
        while self.stop.received is None:
            with left.lock:
                taken = self._next(left)
                if taken is not None:
                    left.runs.pop(taken.number)
                elif not left.runs:
                    return
            if taken is None:  # what is left, other processes carry out
                time.sleep(POLL_S)
                continue
            done = self._one(taken, left.count, slot)
            with left.lock:
                if done is None:
                    left.runs[taken.number] = taken.planned
                else:
                    left.done[taken.number] = done

    def _next(self, left: _Left) -> _Taken | None:
        """Return a run that nobody carries out; those that have ended are ended here too."""
        for number, planned in list(left.runs.items()):
            folder = self.folders.of(planned)
            if folder is not None and Run(folder).finished:
                self._say(f"{number}/{left.count}", planned, "finished before")
                left.end(number, Done.of(planned, folder))
                continue
            if self.claims is None:
                return _Taken(number, planned, None)
            ended, claim = self._ended_elsewhere(planned), None
            if ended is None:
                claim = self.claims.take(self.folders.identity(planned))
                if claim is None:
                    continue
                ended = self._ended_elsewhere(planned)  # just before it was taken
            if ended is None:
                return _Taken(number, planned, claim)
            left.end(number, ended)
            if claim is not None:
                self.claims.release(claim)
        return None

    def _ended_elsewhere(self, planned: Planned) -> Done | None:
        """Return a run that another process has ended since this one looked."""
        assert self.claims is not None
        folder = self.folders.of(planned, again=True)
        if folder is not None and Run(folder).finished:
            return Done.of(planned, folder)
        cause = self.claims.failed(self.folders.identity(planned))
        return (
            None
            if cause is None
            else Done(planned, folder or self.folders.above / planned.name, cause)
        )

    def _one(self, taken: _Taken, count: int, slot: Slot) -> Done | None:
        """Return a run that has been carried out; None where another process has gone on with it."""
        planned, number = taken.planned, f"{taken.number}/{count}"
        several = len(self.engine.slots) > 1 or self.claims is not None
        folder, document = self.folders.of(planned), None
        if folder is None:
            folder, document = self.folders.free(planned.name), planned.document
        self._say(number, planned, "" if document else "going on")
        orders = Orders(self.quiet or several, self.allow_code, slot=slot, compared=True)
        claims, claim = self.claims, taken.claim
        watch = unwatched if claims is None or claim is None else claims.ends(claim)
        with self.board.on(slot, planned.name, folder):
            ended = self.engine.carry_out(folder, document, orders, self.stop, watch)
        if watch() is not None:
            log.warning(
                "%s was gone on with by another process: no sign of life came", planned.name
            )
            return None
        self._tell(planned, ended)
        if several and not ended.cause:
            self._say(number, planned, "finished")
        if not self.engine.alone and Run(folder).started:
            (folder / SHARED).touch()  # also of one that was stopped: it may go on alone
        elif document is not None:  # of a run whose place it took
            (folder / SHARED).unlink(missing_ok=True)
        if claims is not None and claim is not None:
            claims.release(claim, None if self.stop.received else ended.cause)
        return Done.of(planned, folder, ended.cause)

    def _tell(self, planned: Planned, ended: Ended) -> None:
        for word, message in ended.warnings:
            if message not in self.said:
                self.said.add(message)
                log.warning("%s: %s", planned.name, message, extra={"word": word})
        if ended.cause and self.stop.received is None:
            log.warning("%s is not finished: %s", planned.name, ended.cause)

    def _say(self, number: str, planned: Planned, what: str) -> None:
        if not self.quiet:
            text = f"[{number}] {planned.name}" + (f": {what}" if what else "")
            tell(text)
