"""The first examples of a run file as the model gets them: each token, and whether it is trained."""

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from graftlab.contracts import Batch
from graftlab.data.splits import no_split
from graftlab.errors import ConfigError
from graftlab.runfile import RunFile
from graftlab.runs import material

MARKS = "⟦", "⟧"  # around what is trained


class Token(NamedTuple):
    """One of the model's tokens."""

    id: int
    text: str
    trained: bool
    """The loss is about it."""


@dataclass(frozen=True)
class Example:
    """One example of a split."""

    index: int
    text: str
    """All tokens as text, with marks around what is trained."""
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Preview:
    """The first examples of a split."""

    split: str
    sizes: Mapping[str, int]
    """Examples of each split."""
    examples: tuple[Example, ...]
    record: Mapping[str, object]
    """What the task says of its rows."""

    def as_json(self) -> dict[str, object]:
        examples = [
            {**asdict(example), "tokens": [token._asdict() for token in example.tokens]}
            for example in self.examples
        ]
        return {**vars(self), "examples": examples}


def preview(file: RunFile, split: str = "train", num_examples: int = 3) -> Preview:
    """Return the first examples of a split. The model is built without its weights, for its tokenizer.

    Raises:
        ConfigError: the task has no tokens.
        DataError: the split has no examples.
    """
    loaded = material.load(file, meta=True)
    data, task = loaded.data, loaded.task
    if loaded.backbone.max_length is None:
        raise ConfigError("a batch is shown as tokens, but this task has images.")
    if not task.size(split):
        raise no_split(split, [name for name in data.splits if task.size(name)])
    tokenizer = loaded.backbone.processor
    examples = []
    for index in range(min(num_examples, task.size(split))):
        tokens = _tokens({k: v[0] for k, v in task.batch(split, [index], 0).items()}, tokenizer)
        examples.append(Example(index, marked(tokens, tokenizer), tokens))
    return Preview(
        split,
        {name: task.size(name) for name in data.splits},
        tuple(examples),
        {"notes": data.record.get("notes", []), **task.record},
    )


def _tokens(batch: Batch, tokenizer: Any) -> tuple[Token, ...]:
    """Return an example's tokens. One with a class has no token that is trained; of several choices the
    right one is there."""
    ids, labels = batch["input_ids"].flatten(), batch["labels"].flatten()
    trained = (labels == ids).tolist() if len(labels) == len(ids) else [False] * len(ids)
    mask = batch.get("attention_mask")
    kept = [True] * len(ids) if mask is None else mask.flatten().bool().tolist()
    return tuple(
        Token(token, tokenizer.decode([token]), is_trained)
        for token, is_trained, is_kept in zip(ids.tolist(), trained, kept, strict=True)
        if is_kept
    )


def marked(tokens: tuple[Token, ...], tokenizer: Any) -> str:
    """Return the text with marks around what is trained."""
    text = ""
    for trained, group in itertools.groupby(tokens, key=lambda token: token.trained):
        piece = tokenizer.decode([token.id for token in group])
        text += f"{MARKS[0]}{piece}{MARKS[1]}" if trained else piece
    return text
