"""The section of a mixture, and the tasks that it was resolved to."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, model_validator

from graftlab.config import (
    Conflict,
    Section,
)
from graftlab.contracts import TaskKind, TaskPart
from graftlab.errors import Argument, ConfigError, DataError
from graftlab.tasks.mixture.draws import Sampling


@dataclass(frozen=True)
class Resolved:
    """One of the tasks that are made without a run file."""

    module: TaskKind
    config: Section


class Config(Section):
    """Several tasks that train together: of classes all, or of texts all."""

    name: str | None = None
    """Names the mixture in tables; no catalogue entry."""
    kind: str | None = None
    """`mixture`."""
    tasks: tuple[dict[str, object], ...] = Field(min_length=2)
    """The tasks, each a task section of its own. `as` names one in figures and texts; left out, its
    catalogue entry's name or its kind does."""
    each: dict[str, object] = Field(default_factory=dict)
    """Keys that all tasks share, such as `max_length`; a task's own win over them."""
    data_dir: Path | None = None
    """A folder with a folder for each task, by its name, each as the `data_dir` of a single task."""
    sampling: Sampling = "uniform"
    """How often each task is drawn: alike; by its number n of train rows; or by n^(1/temperature)."""
    temperature: float = Field(2.0, gt=0)
    """For sampling `temperature`: 1 is proportional, and the larger, the more uniform."""
    weights: tuple[float, ...] | None = None
    """How often each task is drawn, one number a task, whatever `sampling` says."""
    head: Literal["shared_masked", "shared", "per_task"] | None = None
    """For classes: one head of as many rows as the task with the most classes has, of which a task sees
    its own classes only (what null means), or all; or rows of its own for each task."""
    tag: bool | None = None
    """Put `NAME: ` in front of each text, so that the model knows the task; null means where the head is
    `shared_masked`."""

    _parts: dict[str, TaskPart] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _weights_fit(self) -> "Config":
        if self.weights is not None and len(self.weights) != len(self.tasks):
            raise Conflict(
                "weights",
                f"weights: one number a task is wanted; these are {len(self.weights)} for "
                f"{len(self.tasks)} tasks",
            )
        if self.weights is not None and min(self.weights) <= 0:
            raise Conflict(
                "weights", "weights: each must be above 0; leave out a task that is not to be drawn"
            )
        return self

    @property
    def parts(self) -> Mapping[str, TaskPart]:
        """The tasks by name, resolved."""
        return self._parts

    @property
    def tagged(self) -> bool:
        """Whether texts say their task, where they have classes."""
        return (self.head or "shared_masked") == "shared_masked" if self.tag is None else self.tag


def with_parts(config: Config, parts: Mapping[str, TaskPart]) -> Config:
    """Return the section with its tasks resolved, by name, in their order."""
    resolved = config.model_copy()
    resolved._parts = dict(parts)
    return resolved


@contextlib.contextmanager
def naming(name: str, part: TaskPart) -> Iterator[None]:
    """Have errors of one of the tasks name its keys as an override does: `task.tasks.NAME.skip_bad`."""
    try:
        yield
    except (ConfigError, DataError) as error:
        own = re.compile(rf"\btask\.(?=({'|'.join(type(part.config).model_fields)})\b)")

        def named(words: str | Argument) -> str | Argument:
            return own.sub(f"task.tasks.{name}.", words) if isinstance(words, str) else words

        faults = [
            replace(
                fault,
                said=str(named(fault.said)),
                remedies=tuple(tuple(map(named, remedy)) for remedy in fault.remedies),
            )
            for fault in error.problems
        ]
        raise type(error)(faults) from error
