"""The task types: what each asks of a text that is there as a vector, in the words of `prompts.yaml`."""

import functools
from pathlib import Path
from typing import Literal, NamedTuple

from graftlab.config import read_yaml
from graftlab.data.labels import Unusable
from graftlab.errors import unknown

REMOVED = ("compare", "hypothetical")
"""Task types of the source that ask about two texts; it has given them up."""
DOMAIN = "{domain}"


class TaskType(NamedTuple):
    """What is asked of a text."""

    group: Literal["factual", "descriptive", "creative"]
    instruction: str
    cue: str
    """The line behind which the answer begins."""

    @property
    def wants_domain(self) -> bool:
        """Whether a row has to say into which domain the text is carried over."""
        return DOMAIN in self.instruction

    def prompt(self, domain: str | None = None) -> str:
        """Return the words that stand behind the vector. `Raises:` Unusable: a domain is wanted."""
        if self.wants_domain and not domain:
            raise Unusable("it names no domain, without which its response cannot be told")
        return f"{self.instruction.replace(DOMAIN, domain or '')}\n{self.cue}"


@functools.cache
def task_types() -> dict[str, TaskType]:
    """Return the task types by name."""
    found = read_yaml(Path(__file__).with_name("prompts.yaml"))
    return {name: TaskType(**fields) for name, fields in found.items()}


def named(name: str) -> TaskType:
    """Return a task type. `Raises:` Unusable: there is none of that name."""
    if name in REMOVED:
        raise Unusable(f"task type {name!r} asks about two texts, and is not supported")
    if name not in task_types():
        raise Unusable(unknown("task type", name, task_types()).removesuffix("."))
    return task_types()[name]
