"""Rows written by a model, kept one by one: killed anywhere, the same call goes on, to the same rows."""

import functools
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from graftlab.errors import OUT, ConfigError, DiskError
from graftlab.rundir import files
from graftlab.rundir.lines import Lines
from graftlab.synthesis import orders, quality
from graftlab.synthesis.documents import Documents
from graftlab.synthesis.folder import Answer, Answered
from graftlab.synthesis.orders import Order, Unanswerable
from graftlab.terminal import Pace

REFUSALS = 5  # texts in a row, after which they are of no one text
Made = TypeVar("Made")
JOB, ANSWERS = "job.json", "answers.jsonl"


class Writer(Protocol):
    """What answers: a model here, or an endpoint."""

    @property
    def identity(self) -> dict[str, object]:
        """What decides what it answers."""

    def write(self, order: Order) -> tuple[str, bool]:
        """Return an answer, and whether it was cut off. `Raises:` Unanswerable; ModelError."""


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
        answered, waiting = any(map(_is_answered, found)), list[dict[str, object]]()
        for answer in _in_order(missing, functools.partial(_answer, writer), manner.parallel):
            if isinstance(answer, Unanswerable):
                _refuse_many(wanted, found, answer)
                answer = {"response": None, "rejected": answer.reason}
            found.append(answer)
            waiting.append(answer)
            answered = answered or _is_answered(answer)
            if answered:  # what is refused before may be of the endpoint, and is asked for again
                for one in waiting:
                    lines.append(one)
                lines.durable()
                waiting.clear()
            pace.at(len(found))
    finally:
        lines.close()
    return found


def _answer(writer: Writer, order: Order) -> "dict[str, object] | Unanswerable":
    """Return what is kept of an order, or why a model refuses it."""
    try:
        written, cut = writer.write(order)
    except Unanswerable as refused:
        return refused
    response = quality.without_thoughts(written)
    return {"response": response, "rejected": quality.fault(order, response, cut)}


def _is_answered(answer: Mapping[str, object]) -> bool:
    return answer["response"] is not None


def _refuse_many(
    wanted: Sequence[Order], found: Sequence[Mapping[str, object]], refused: Unanswerable
) -> None:
    """Raise the error of a refusal that is not of its text alone: many texts before it were refused in a
    row; or another one and no text was answered yet, or none is left that could be."""
    number = len(found)
    start = next((n for n in range(number, 0, -1) if _is_answered(found[n - 1])), 0)
    texts = {(order.split, order.document) for order in wanted[start : number + 1]}
    most = REFUSALS if start else 1
    if len(texts) > most or (not start and number + 1 == len(wanted)):
        raise refused.error from refused


def _in_order(
    wanted: Sequence[Order], answer: Callable[[Order], Made], parallel: int
) -> Iterator[Made]:
    """Yield the answers in the order of what is wanted, with so many under way."""
    if parallel == 1:
        yield from map(answer, wanted)
        return
    pool = ThreadPoolExecutor(parallel)
    waiting: deque[Future[Made]] = deque()
    try:
        for order in wanted:
            waiting.append(pool.submit(answer, order))
            if len(waiting) == parallel:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
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
