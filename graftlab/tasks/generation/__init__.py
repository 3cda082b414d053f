"""Text that answers a prompt: instruction tuning, questions, summaries, code, chats; and plain text."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.config import Paths
from graftlab.contracts import Backbone, Data, Problem, Row
from graftlab.data.load import check_local
from graftlab.errors import ConfigError, Fault, near_file, wrong
from graftlab.programs import sandbox
from graftlab.tasks.generation import fields as configs
from graftlab.tasks.generation import rows
from graftlab.tasks.generation.fields import Config

if TYPE_CHECKING:
    from graftlab.tasks.generation.task import GenerationTask

__all__ = ["BACKBONES", "Config", "bind", "check", "example", "packs", "problem", "read",
           "read_inputs", "write_rows"]  # fmt: skip

BACKBONES = ("decoder", "tiny")


def example(folder: Path) -> Config:
    """Return a section that reads questions, written into `folder`: for `graftlab plan`."""
    write_rows(
        folder,
        lambda split, i: {"question": f"{split} {'so ' * (i % 4)}{i}?", "answer": f"{i} times"},
    )
    return Config(
        data_dir=folder,
        prompt="Q: {question}\nA:",
        completion=" {answer}",
        metrics=("token_accuracy", "perplexity"),
        **configs.example_fields(),
    )


def write_rows(folder: Path, row: Callable[[str, int], Row]) -> None:
    """Write a few rows of each split: what `row` makes of the split's name and a number."""
    for split, count in (("train", 9), ("validation", 3), ("test", 3)):
        text = "".join(json.dumps(row(split, i)) + "\n" for i in range(count))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def problem(config: Config) -> Problem:
    """Return what the model has to put out: tokens of any text."""
    return Problem("tokens")


def packs(config: Config) -> bool:
    """Say whether several examples stand in one row of tokens."""
    return config.packing != "none"


def check(config: Config) -> list[Fault]:
    """Return what is wrong with local files and columns; nothing is imported or downloaded.

    Raises:
        Refused: programs are to be run, and there is no sandbox.
    """
    if config.execute_code:
        sandbox.check()
    template, found = config.chat_template_file, list[Fault]()
    if template is not None and not template.is_file():
        said = (
            f"task.chat_template_file: there is no file {template.absolute()}.{near_file(template)}"
        )
        found.append(wrong("chat_template_file", said, kind="missing"))
    wanted = rows.needed(config)
    return found + check_local(config, rows.asked(config) or wanted[:1], wanted[-1])


def read(config: Config, paths: Paths, seed: int) -> Data:
    """Return the task's rows: `index`, `fields` (texts by column) or `messages`, and `label`, what an answer
    is scored by.

    `seed` changes nothing here; see `split_seed`.

    Raises:
        ConfigError, DataError, Refused
    """
    return rows.read(config, paths)


def read_inputs(config: Config, source: str | Path | Sequence[object]) -> list[Row]:
    """Return new inputs as rows without labels; see `reading.read_inputs`. `Raises:` DataError."""
    return rows.read_inputs(config, source)


def bind(data: Data, backbone: Backbone, config: Config, seed: int) -> "GenerationTask":
    """Return the task with its texts as tokens; `record` counts what was cut or left out.

    Raises:
        ConfigError: `max_length` is more than the model takes, the backbone reads images, or there is no
            chat template.
        DataError: too many train rows have nothing to train on.
    """
    from graftlab.tasks.generation.task import GenerationTask

    if backbone.max_length is None:
        raise ConfigError("this task has texts, but the backbone reads images.")
    return GenerationTask(data, backbone, config, seed)
