"""Questions about texts that are there as vectors: a language model reads the vector and answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.config import Paths
from graftlab.contracts import Backbone, Controls, Data, Problem, Row
from graftlab.data import sources
from graftlab.errors import ConfigError, Fault, GraftlabError
from graftlab.tasks.elm import asked_otherwise, inputs, row_vectors, rows, tree
from graftlab.tasks.elm.fields import Config
from graftlab.tasks.generation.fields import Generation

if TYPE_CHECKING:
    from graftlab.tasks.generation.task import GenerationTask

__all__ = ["BACKBONES", "VECTORS", "Config", "bind", "check", "controls", "example", "problem", "read",
           "read_inputs"]  # fmt: skip

BACKBONES = ("decoder", "tiny")
VECTORS = True


def example(folder: Path) -> Config:
    """Return a section that reads vectors and rows, written into `folder`: for `graftlab plan`."""
    import numpy as np

    from graftlab.data.vectors import store

    for number, (split, count) in enumerate({"train": 9, "validation": 3, "test": 3}.items()):
        (folder / split).mkdir()
        drawn = np.random.default_rng(number).normal(size=(count, 12))
        store.write(folder / split / tree.VECTORS, drawn / np.linalg.norm(drawn, axis=1)[:, None])
        lines = (
            {
                "task_type": ("category", "summary")[i % 2],
                "embedding_file_idx": i,
                "query": f"What {'so ' * (i % 3)}{i}?",
                "response": f"{split} {i}",
            }
            for i in range(count)
        )
        text = "".join(json.dumps(row) + "\n" for row in lines)
        (folder / split / tree.ROWS).write_text(text, encoding="utf-8")
    return Config(
        data_dir=folder,
        prompts="rows",
        max_length=60,
        metrics=("token_accuracy", "perplexity"),
        generation=Generation(max_new_tokens=6),
    )


def problem(config: Config) -> Problem:
    """Return what the model has to put out: tokens of any text."""
    return Problem("tokens")


def check(config: Config) -> list[Fault]:
    """Return what is wrong with the files and their first rows; nothing is imported or downloaded."""
    assert config.data_dir is not None, "every other place of rows is refused"
    try:
        for files in tree.find(config.data_dir).values():
            sources.first_row(config, files.rows, ("", ""))
        rows.opened(config)
    except GraftlabError as error:
        return list(error.problems)
    return []


def read(config: Config, paths: Paths, seed: int) -> Data:
    """Return the task's rows; see `rows.read`. `seed` changes nothing here; see `split_seed`.

    Raises:
        DataError
    """
    return rows.read(config, paths)


def read_inputs(
    config: Config,
    source: str | Path | Sequence[object],
    task: str | None = None,
    query: str | None = None,
) -> list[Row]:
    """Return new inputs as rows, of which some have a text that is still to become a vector; see
    `inputs.read`. Where they say nothing else they are asked for a `task` type, or by a `query`.

    Raises:
        ConfigError, DataError
    """
    return inputs.read(config, source, inputs.Asked(task, query))


def bind(data: Data, backbone: Backbone, config: Config, seed: int) -> "GenerationTask":
    """Return the task with its texts as tokens, and its vectors where they are.

    Raises:
        ConfigError: `max_length` is more than the model takes, the backbone reads images, or there is no
            chat template.
        DataError: too many train rows have nothing to train on.
    """
    from graftlab.tasks.generation.task import GenerationTask

    if backbone.max_length is None:
        raise ConfigError("this task has texts, but the backbone reads images.")
    if new := data.splits.get("input"):
        vectors = row_vectors.of_inputs(new, config.num_tokens)
        texts = config.conversation if inputs.MESSAGES in new[0] else config.texts
        return GenerationTask(data, backbone, texts, seed, vectors)
    files = rows.opened(config)
    vectors = row_vectors.RowVectors(files, files["train"].width, config.num_tokens)
    return GenerationTask(data, backbone, config.texts, seed, vectors)


def controls(data: Data, split: str, backbone: Backbone, config: Config, seed: int) -> Controls:
    """Return the rows of a split asked otherwise too; see `asked_otherwise.of`. `Raises:` DataError."""
    return asked_otherwise.of(data, split, backbone, config, seed)
