"""Rows written by a model, kept one by one: killed anywhere, the same call goes on, to the same rows."""

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from graftlab.errors import OUT, ConfigError, DiskError
from graftlab.rundir import files
from graftlab.rundir.lines import Lines
from graftlab.synthesis import orders, quality
from graftlab.synthesis.documents import Documents
from graftlab.synthesis.folder import Answer, Answered
from graftlab.synthesis.orders import Order
from graftlab.terminal import Pace

JOB, ANSWERS = "job.json", "answers.jsonl"


class Writer(Protocol):
    """What answers: a model here, or an endpoint."""

    @property
    def identity(self) -> dict[str, object]:
        """What decides what it answers."""

    def write(self, order: Order) -> tuple[str, bool]:
        """Return an answer, and whether it was cut off."""


class Manner(NamedTuple):
    """How answers are asked for."""

    seed: int = 0
    parallel: int = 1
    """Answers that are waited for at the same time."""
    quiet: bool = False


class Written(NamedTuple):
    """All that a model has answered."""

    answered: Answered
    rejected: Counter[str]


def journal(out: Path) -> Path:
    """Return the folder in which answers are kept until `out` is written."""
    return out.with_name(f"{out.name}.answers")


def rows(
    documents: Documents,
    writer: Writer,
    types: Sequence[str],
    out: Path,
    manner: Manner = Manner(),  # noqa: B008  it is immutable
) -> Written:
    """Return the answers to each text; those that were there already are not asked for again.

    Raises:
        ConfigError: answers to other texts, of another model or to other questions are there.
        ModelError: the model gives none.
        DiskError: they cannot be kept.
    """
    wanted = list(orders.of(documents, types, manner.seed))
    job: dict[str, object] = {
        "texts": [document.key.hex() for of in documents.splits.values() for document in of],
        "splits": {split: len(of) for split, of in documents.splits.items()},
        "types": list(types),
        "seed": manner.seed,
        "model": writer.identity,
    }
    kept = journal(out)
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with files.alone(kept / ".lock"):
            _check(kept, job)
            found = _go_on(kept / ANSWERS, wanted, writer, manner)
    except OSError as error:
        said = f"{kept} cannot be written: {error}."
        remedy = (f"{files.trouble(error) or 'Mend that'}, and call the same again: it goes on.",)
        raise DiskError(said, remedy, kind="unwritable", given=str(kept)) from error
    return _sorted(documents, wanted, found)


def _check(kept: Path, job: Mapping[str, object]) -> None:
    path = kept / JOB
    if not path.is_file():
        files.write_json(path, job)
        return
    before = files.read_json(path)
    if before != job:
        differ = ", ".join(sorted(name for name in job if before.get(name) != job[name]))
        raise ConfigError(
            f"{kept} has answers of another job, which differs in {differ}.",
            ("Choose another with ", OUT, ", or delete it."),
            kind="taken",
            given=str(kept),
        )


def _go_on(
    path: Path, wanted: Sequence[Order], writer: Writer, manner: Manner
) -> list[dict[str, object]]:
    """Return what was answered to each order, asking for what is missing."""
    lines = Lines(path)  # takes off what a crash has cut
    try:
        found = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
        pace = Pace("rows", len(wanted), len(found), manner.quiet)
        missing = wanted[len(found) :]
        for order, (response, cut) in _in_order(missing, writer, manner.parallel):
            answer = {"response": response, "rejected": quality.fault(order, response, cut)}
            lines.append(answer)
            lines.durable()
            found.append(answer)
            pace.at(len(found))
    finally:
        lines.close()
    return found


def _in_order(
    wanted: Sequence[Order], writer: Writer, parallel: int
) -> Iterator[tuple[Order, tuple[str, bool]]]:
    """Yield orders with their answers, in their order, with so many under way."""
    if parallel == 1:
        yield from ((order, writer.write(order)) for order in wanted)
        return
    pool = ThreadPoolExecutor(parallel)
    waiting: deque[tuple[Order, Future[tuple[str, bool]]]] = deque()
    try:
        for order in wanted:
            waiting.append((order, pool.submit(writer.write, order)))
            if len(waiting) == parallel:
                first, answer = waiting.popleft()
                yield first, answer.result()
        while waiting:
            first, answer = waiting.popleft()
            yield first, answer.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _sorted(
    documents: Documents, wanted: Sequence[Order], found: Sequence[Mapping[str, object]]
) -> Written:
    answers: dict[tuple[str, int], list[Answer]] = {}
    rejected = Counter[str]()
    for order, answer in zip(wanted, found, strict=True):
        if answer["rejected"] is not None:
            rejected[f"{order.task_type}: {answer['rejected']}"] += 1
            continue
        made = Answer(order.task_type, str(answer["response"]), order.domain)
        answers.setdefault((order.split, order.document), []).append(made)
    answered = {
        split: [(d.text, answers.get((split, n), [])) for n, d in enumerate(of)]
        for split, of in documents.splits.items()
    }
    return Written(answered, rejected)
