"""The fields of a task that generates text."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from graftlab.config import Conflict, Section
from graftlab.data.section import DataSection
from graftlab.tasks.generation import templates
from graftlab.tasks.generation.templates import Template

OF_LOSS = ("perplexity", "token_accuracy")  # metrics that read no text


class Columns(Section):
    """Which columns of the data are what."""

    messages: str = "messages"
    """A conversation, for template `chat`: a list of turns with `role` and `content`, or with `from` and
    `value` as ShareGPT has them."""
    tools: str | None = None
    """The tools that a conversation may call, for template `chat`: a list, or its JSON. Left out: `tools`,
    where the data has it."""
    text: str = "text"
    """The text, for template `text`."""
    reference: str | tuple[str, ...] | None = None
    """What answers are scored by: a column with a text, a list of texts or a mapping; several columns
    become a mapping. Left out: the completion."""


class Generation(Section):
    """How texts are written at the end of a run, and by `graftlab predict`."""

    max_new_tokens: int = Field(128, ge=1)
    """Most tokens that are written."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the most probable token each time; more draws, 1 from the model's own distribution."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw only from the most probable tokens that together have this probability."""
    top_k: int = Field(0, ge=0)
    """Draw only from so many of the most probable tokens; 0: from all."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Tokens that stand in the prompt or the answer already are so much less probable (Keskar et al.,
    2019, arXiv 1909.05858); 1: no less."""
    stop: tuple[str, ...] = ()
    """Texts at which an answer ends; they are not part of it."""
    samples: int = Field(1, ge=1)
    """Answers to each example, for metrics such as pass_at_10."""
    seed: int = Field(0, ge=0)
    """What is drawn comes from it, the split and the example's place, whatever the batch."""
    splits: tuple[Literal["validation", "test"], ...] = ("test",)
    """Splits that answers are written for at the end of a run."""
    at_evaluations: int | None = Field(None, ge=1)
    """So many answers are written at every evaluation, to validation examples drawn once, and scored: by what
    is written the best checkpoint can then be chosen (`training.best_by`) and a run be stopped early. Left
    out: none."""

    @model_validator(mode="after")
    def _draws(self) -> "Generation":
        if "" in self.stop:
            raise Conflict("stop", "stop: an empty text would end every answer at once")
        if self.temperature:
            return self
        for name in ("top_p", "top_k", "samples"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise Conflict(name, f"{name} has no effect at temperature 0: give a temperature")
        return self


class Config(DataSection):
    """A prompt and the text that answers it: instructions, questions, summaries, code, chats; or plain
    text."""

    template: Literal["alpaca", "question_answer", "summarise", "code", "chat", "text"] | None = (
        None
    )
    """How a row becomes a text; or give `prompt` and `completion`. `chat` and `text` have no prompt."""
    prompt: str | None = None
    """What the model reads, with columns in braces; in place of the named template's."""
    completion: str | None = None
    """What it is to answer, with columns in braces; in place of the named template's."""
    columns: Columns = Columns()
    """Which columns of the data are what."""
    no_answer: str = "unanswerable"
    """Text of a column with an empty list of answers (SQuAD v2)."""
    chat_template: bool = False
    """Put prompt and completion as the turns of user and assistant into the tokenizer's chat template."""
    chat_template_file: Path | None = None
    """A Jinja chat template in place of the tokenizer's."""
    system: str | None = None
    """A system turn in front, where there is a chat template and the row has none."""
    loss_on: Literal["completion", "all"] | None = None
    """What is trained: the completion (in a chat, every turn of the assistant), which is usual, or all, with
    prompts; of a plain text all."""
    cut: tuple[str, ...] | None = None
    """Columns that lose their end where a row is too long, in this order; in a chat, `messages` loses its
    last turns. Left out: the named template's (its context, input, document, text or messages). A train row
    that is too long all the same is left out and counted; of other splits, it loses the beginning of its
    prompt."""
    max_length: int | None = Field(None, ge=8)
    """Longest input in tokens. Left out: 512, or the model's own limit if that is less."""
    max_left_out: float = Field(0.1, ge=0, lt=1)
    """Share of the train rows that may be left out, too long or with nothing to train on; one more stops
    the run."""
    packing: Literal["none", "packed", "padding_free"] = "none"
    """How the examples of a step lie in tensors while training: a row each, several in rows of at most
    `max_length` tokens, or all in one row; no example sees another. The steps are the same."""
    metrics: tuple[str, ...] = ()
    """Names of metrics, or mappings of a `name` and its settings. perplexity and token_accuracy come of every
    evaluation, and the first of them chooses the best checkpoint (perplexity where neither is named); the
    others come of answers that are written at the end, where any is named."""
    generation: Generation = Generation()
    """How answers are written."""
    execute_code: bool = False
    """Run the programs that are written against their tests, in a sandbox, for pass_at_1 and its like;
    refused where there is no sandbox."""

    @field_validator("prompt", "completion")
    @classmethod
    def _names_columns(cls, value: str | None) -> str | None:
        templates.columns_of(value or "")
        return value

    @model_validator(mode="after")
    def _one_form(self) -> "Config":
        if self.labels or self.drop_labels:
            raise Conflict("labels", "labels and drop_labels are for classes; generation has none")
        if self.template in ("chat", "text"):
            if self.prompt is not None or self.completion is not None:
                raise Conflict(
                    "template", f"template {self.template} has no prompt and no completion"
                )
        elif self.template is None and (self.prompt is None or self.completion is None):
            raise Conflict("template", "give a template, or a prompt and a completion")
        if self.template == "chat" and self.chat_template:
            raise Conflict(
                "chat_template",
                "chat_template is for prompt and completion; template chat has its own",
            )
        if self.template == "text" and self.chat_template:
            raise Conflict("chat_template", "chat_template: a plain text has no turns")
        if not self.chats and (self.system is not None or self.chat_template_file):
            raise Conflict(
                "system", "system and chat_template_file need chat_template: true or template: chat"
            )
        if self.template == "text" and self.loss_on == "completion":
            raise Conflict("loss_on", "loss_on: a plain text has no completion; all of it trains")
        texts = metrics(self)[1]
        if self.generation.at_evaluations and not texts:
            raise Conflict(
                "generation",
                "generation.at_evaluations: metrics names none that reads what is written",
            )
        if self.execute_code and not any(name.startswith("pass_at") for name in self.metrics):
            raise Conflict(
                "execute_code", "execute_code is for pass_at_1 and its like; metrics names none"
            )
        known = self.known_columns
        for column in self.cut or ():
            if column not in known:
                raise Conflict(
                    "cut", f"cut: {column!r} stands in no prompt; it has {', '.join(known)}"
                )
        return self

    def _labels_unknown(self) -> None:
        """There are none."""

    @property
    def chats(self) -> bool:
        """Whether rows go through a chat template."""
        return self.template == "chat" or self.chat_template

    @property
    def filled(self) -> Template:
        """The format strings, for all templates but chat."""
        if self.template == "text":
            name = self.columns.text
            return Template("", "{" + name + "}", (name,))
        named = templates.NAMED.get(self.template or "", Template("", ""))
        if self.prompt is not None:
            columns = templates.columns_of(self.prompt)
            cut = tuple(name for name in named.cut if name in columns)
            named = named._replace(prompt=self.prompt, optional=None, without="", cut=cut)
        if self.completion is not None:
            named = named._replace(completion=self.completion)
        return named

    @property
    def first_column(self) -> str:
        return next(iter((*self.known_columns, *templates.columns_of(self.filled.completion))), "")

    @property
    def known_columns(self) -> tuple[str, ...]:
        """Columns that may be shortened."""
        if self.template == "chat":
            return (self.columns.messages,)
        if self.template == "text":
            return (self.columns.text,)
        return templates.columns_of(self.filled.prompt)

    @property
    def shortened(self) -> tuple[str, ...]:
        """Columns that are shortened, in their order."""
        if self.cut is not None:
            return self.cut
        return self.known_columns if self.template == "chat" else self.filled.cut


def metrics(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the metrics of every evaluation, and those of written answers."""
    always = tuple(name for name in config.metrics if name in OF_LOSS)
    if not config.metrics:
        always = OF_LOSS
    return always or OF_LOSS[:1], tuple(name for name in config.metrics if name not in OF_LOSS)


def example_fields(**fields: Any) -> dict[str, Any]:
    """Return fields of a section that fits the tiny backbone."""
    short = {"max_new_tokens": 6}
    return {
        "max_length": 60,
        "generation": Generation(**{**short, **fields.pop("generation", {})}),
        **fields,
    }
