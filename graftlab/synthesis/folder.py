"""Texts and their rows as a folder that `graftlab embed` and a task of kind elm read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from graftlab.errors import DataError
from graftlab.rundir import files
from graftlab.synthesis.choice import write_rows
from graftlab.tasks.elm import prompts, tree

RECORD = "synthesis.json"


class Answer(NamedTuple):
    """What a row says of its text."""

    task_type: str
    response: str
    domain: str | None = None


Answered = Mapping[str, Sequence[tuple[str, Sequence[Answer]]]]
"""Of each split the texts, each with its answers."""


def write(out: Path, answered: Answered, record: Mapping[str, object]) -> dict[str, object]:
    """Write texts and rows, each split in a folder of its own; return the record with their counts.

    A text that has no answer is left out, so that no vector is made for nothing.

    Raises:
        ConfigError: `out` is taken.
        DataError: no text of train has an answer.
        DiskError: `out` cannot be written.
    """
    used = {s: [(text, rows) for text, rows in of if rows] for s, of in answered.items()}
    if not used.get("train"):
        raise DataError("no text of train has an answer that can be used.", kind="empty")
    counts = {
        split: {
            "texts": len(of),
            "of_texts": len(answered[split]),
            "rows": dict(Counter(answer.task_type for _, answers in of for answer in answers)),
        }
        for split, of in used.items()
    }
    whole = {**record, "splits": counts}
    with files.new_folder(out) as partial:
        files.write_json(partial / RECORD, whole)
        for split, of in used.items():
            if not of:
                continue
            (partial / split).mkdir()
            write_rows(partial / split / tree.TEXTS, [{"text": text} for text, _ in of])
            rows = [_row(n, answer) for n, (_, answers) in enumerate(of) for answer in answers]
            write_rows(partial / split / tree.ROWS, rows)
    return whole


def _row(place: int, answer: Answer) -> dict[str, object]:
    query = prompts.named(answer.task_type).prompt(answer.domain)
    row = {"task_type": answer.task_type, "embedding_file_idx": place, "query": query}
    return {**row, "response": answer.response} | (
        {"domain": answer.domain} if answer.domain else {}
    )
