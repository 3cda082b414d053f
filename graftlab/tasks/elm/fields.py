"""The fields of a task whose rows stand for vectors."""

from typing import Any, Literal

from pydantic import Field, model_validator

from graftlab.config import Conflict
from graftlab.data.section import DataSection
from graftlab.tasks.generation.chat import before_words
from graftlab.tasks.generation.fields import Config as Texts
from graftlab.tasks.generation.fields import Generation

IDLE = (
    *("files", "hub", "source", "options", "labels", "drop_labels", "encoding", "delimiter"),
    *("quoting", "empty", "duplicates"),
)
"""Fields of other tasks that say nothing here."""


class Config(DataSection):
    """Questions about texts that are there as vectors, and their answers. `data_dir` has, for each split, a
    folder with `embeddings.safetensors` and `rows.jsonl`."""

    prompts: Literal["catalogue", "rows"] = "catalogue"
    """What is asked: the words that graftlab has for each task type, or each row's own `query`."""
    prompt_format: Literal["plain", "chat"] = "plain"
    """Vector, prompt and answer as they are; or as the turns of user and assistant in the tokenizer's chat
    template."""
    num_tokens: int = Field(1, ge=1)
    """How many positions of the prompt stand for a vector: the adapter makes as many tokens of it."""
    max_length: int | None = Field(None, ge=8)
    """Longest input in tokens. Left out: 512, or the model's own limit if that is less. A train row that is
    longer is left out and counted; of other splits, it loses the end of its answer."""
    max_left_out: float = Field(0.1, ge=0, lt=1)
    """Share of the train rows that may be left out as too long; one more stops the run."""
    metrics: tuple[str, ...] = ()
    """Names of metrics, or mappings of a `name` and its settings. perplexity and token_accuracy come of every
    evaluation, and the first of them chooses the best checkpoint; the others come of answers that are
    written."""
    generation: Generation = Generation()
    """How answers are written."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> "Config":
        for name in IDLE:
            field = type(self).model_fields[name]
            if getattr(self, name) != field.get_default(call_default_factory=True):
                raise Conflict(name, f"{name} is for other tasks; rows and vectors are in data_dir")
        return self

    @property
    def chats(self) -> bool:
        """Whether prompts go through a chat template."""
        return self.prompt_format == "chat"

    @property
    def texts(self) -> Texts:
        """The task of prompts and answers that this one is, with a place for the vector in each prompt."""
        end = "" if self.chats else "\n"
        return Texts(
            prompt=f"{before_words(self.num_tokens)}{{prompt}}{end}",
            completion="{response}",
            chat_template=self.chats,
            **self._shared(),
        )

    @property
    def conversation(self) -> Texts:
        """The task of conversations, with a place for the vector in the first turn of the user."""
        return Texts(template="chat", **self._shared())

    def _shared(self) -> dict[str, Any]:
        names = ("data_dir", "max_length", "max_left_out", "metrics", "generation")
        return {"cut": (), **{name: getattr(self, name) for name in names}}
