"""The model that answers: one here, or one behind an endpoint."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from graftlab.contracts import written as noted
from graftlab.errors import Argument, ConfigError, Place, Words
from graftlab.synthesis import choice, written
from graftlab.synthesis.documents import Documents
from graftlab.synthesis.endpoint import Endpoint
from graftlab.synthesis.folder import Answered
from graftlab.synthesis.local_model import LocalModel
from graftlab.tasks.elm import prompts

MAX_NEW_TOKENS = 512


class Request(NamedTuple):
    """A model, and what it is to be asked."""

    model: str | None
    endpoint: str | None
    only: tuple[str, ...]
    """Task types and groups; none: all."""
    max_new_tokens: int | None
    parallel: int | None
    """Answers that an endpoint is to write at the same time."""


def check(asked: Request, columns: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse what does not go together. `Raises:` ConfigError."""
    model, target = Argument("model"), Argument("target")
    if not columns and asked.model is None:
        remedy = (
            "Name a model with ",
            model,
            ", or the columns of labelled data with ",
            target,
            ".",
        )
        raise ConfigError("what is to answer?", remedy, kind="missing")
    idle = {**asked._asdict()} if columns else {"names": names}
    if asked.endpoint is None and asked.parallel is not None:
        behind: Words = ("It is for models behind ", Argument("endpoint"), ".")
        place = Place(argument=Argument("parallel"))
        raise ConfigError("it does nothing here.", behind, kind="idle", place=place)
    for name, value in idle.items():
        if value:
            other = "labelled data" if columns else "a model"
            place = Place(argument=Argument(name))
            raise ConfigError(
                f"it does nothing with {other}.", kind="idle", place=place, given=value
            )
    choice.chosen(asked.only)


def rows(
    documents: Documents, asked: Request, out: Path, seed: int, quiet: bool = False
) -> tuple[Answered, Counter[str], dict[str, object]]:
    """Return the answers, how many were rejected for what reason, and the record of the model.

    Raises:
        ConfigError, ModelError, DiskError: as `written.rows`.
    """
    assert asked.model is not None
    limit = asked.max_new_tokens or MAX_NEW_TOKENS
    types = choice.chosen(asked.only) if asked.only else tuple(prompts.task_types())
    writer: Endpoint | LocalModel
    if asked.endpoint is not None:
        writer = Endpoint(asked.endpoint, asked.model, limit)
    else:
        writer = LocalModel(asked.model, limit)
    found = written.rows(
        documents, writer, types, out, written.Manner(seed, asked.parallel or 1, quiet)
    )
    notes = noted(writer.notes)
    record = {"made_by": writer.identity, "troubles": dict(writer.troubles), "notes": notes}
    return found.answered, found.rejected, record


def forget(out: Path) -> None:
    """Remove the answers that were kept on the way, once `out` has them."""
    shutil.rmtree(written.journal(out), ignore_errors=True)
