"""Rows become examples of tokens that fit; what had to be cut or left out is counted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftlab.contracts import Row
from graftlab.data.labels import Unusable
from graftlab.errors import DataError
from graftlab.tasks._tokens import shortened
from graftlab.tasks.generation import chat, templates
from graftlab.tasks.generation.chat import VECTOR, Guard, Renderer, Segment, Tools
from graftlab.tasks.generation.fields import Config
from graftlab.tasks.generation.tokens import Encoder, Example, Source, special_tokens
from graftlab.tasks.generation.turns import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROUNDS = 8  # of cutting: what is left has other tokens than it had in the whole, at times more
TOO_LONG = "too long"
NOTHING = "nothing to train on"


@dataclass
class Built:
    """The examples of a split."""

    examples: list[Example | None]
    """One a row; None where there is none."""
    max_length: int
    """Of an example, in tokens."""
    cut: set[int] = field(default_factory=set)
    """Rows that have lost something of what may be cut."""
    left_out: dict[int, str] = field(default_factory=dict)
    """Rows without an example, or with one that is too long, and the reason."""


class Builder:
    """Makes examples out of rows, by a template. Of conversations each has `num_vectors` places of a vector,
    in the user's first turn."""

    def __init__(
        self, config: Config, tokenizer: "PreTrainedTokenizerBase", num_vectors: int = 0
    ) -> None:
        self.config, self._form = config, config.filled
        self._opening = chat.before_words(num_vectors if config.template == "chat" else 0)
        self.renderer: Renderer | None = None
        if config.chats:
            template = chat.template_of(tokenizer, config.chat_template_file)
            self.renderer = Renderer(tokenizer, template, config.system)
        self.encoder = Encoder(tokenizer, own=not config.chats)
        special = special_tokens(tokenizer)
        texts = (self._form.prompt, self._form.without, self._form.completion)
        marks = (*special, VECTOR)
        named = config.chats or any(mark in text for text in texts for mark in marks)
        self._num_vectors = (self._opening + self._form.prompt).count(VECTOR)
        self._guard = Guard(special) if named else None

    def build(self, rows: Sequence[Row], max_length: int, answered: bool = True) -> Built:
        """Return the rows as examples of at most `max_length` tokens: prompt and answer where the row has a
        label, prompts alone where not `answered`.

        Raises:
            DataError: the chat template does not say where an answer stands.
        """
        built = Built([None] * len(rows), max_length)
        pending = {
            place: (row, source)
            for place, row in enumerate(self._bounded(built, rows, max_length))
            if (source := self._source(built, place, row, (answered, place not in built.cut)))
        }
        for round_ in range(ROUNDS + 1):
            examples = self.encoder.examples([source for _, source in pending.values()])
            long: dict[int, tuple[Row, Source]] = {}
            for (place, (row, _)), example in zip(list(pending.items()), examples, strict=True):
                excess = len(example) - max_length
                shorter = self._shorter(row, excess) if excess > 0 and round_ < ROUNDS else None
                if excess <= 0 or shorter is None:
                    self._put(built, place, example, excess)
                elif source := self._source(built, place, shorter, (answered, False)):
                    built.cut.add(place)
                    long[place] = shorter, source
            pending = long
            if not pending:
                break
        return built

    def _bounded(self, built: Built, rows: Sequence[Row], max_length: int) -> Iterator[Row]:
        """Yield rows of which columns that may be cut have no more than is enough to fill an example."""
        for place, row in enumerate(rows):
            names = self.config.shortened if "fields" in row else ()
            for name in names:
                text = row["fields"].get(name) or ""
                part = shortened(text, self.encoder.tokenizer, max_length)
                if len(part) < len(text):
                    built.cut.add(place)
                    row = {**row, "fields": {**row["fields"], name: part}}
            yield row

    def _source(self, built: Built, place: int, row: Row, how: tuple[bool, bool]) -> Source | None:
        """Return a row's text; `how`: with its answer, and not cut so far."""
        answered, whole = how[0] and is_answered(row), how[1]
        try:
            segments = self.segments(row, answered)
        except Unusable as reason:
            built.left_out[place] = str(reason)
            return None
        segments = list(self._sized(segments, row, built.max_length))
        # a plain text that was cut does not end where it is cut
        return Source(segments, answered and (whole or self.config.template != "text"))

    def _sized(self, segments: Sequence[Segment], row: Row, max_length: int) -> Iterator[Segment]:
        """Yield the segments with no more text than `Example.within` can keep of what is too long: the end of
        what stands before an answer, and the beginning of the answer.

        By how much an example is too long counts only where there is something left to cut.
        """
        tokenizer, cut = self.encoder.tokenizer, self.config.shortened
        chat = self.config.template == "chat"
        fixed = chat or not any(f"{{{name}" in self._form.completion for name in cut)
        nothing = chat or not any(row["fields"].get(name) for name in cut)
        begun = False
        for segment in segments:
            begun = begun or segment.trained
            if fixed if begun else nothing:
                text = shortened(segment.text, tokenizer, max_length, left=not begun)
                segment = segment._replace(text=text)
            yield segment

    def _put(self, built: Built, place: int, example: Example, excess: int) -> None:
        if (found := example.num_vectors) != self._num_vectors:
            lost = f"the template writes {found} of {self._num_vectors} places of its vector"
            built.left_out[place] = lost
            return
        built.examples[place] = example
        if excess > 0:
            built.left_out[place] = TOO_LONG
        elif not example.trained[1:].any():
            built.left_out[place] = NOTHING

    def segments(self, row: Row, answered: bool) -> list[Segment]:
        """Return the row's text, its prompt alone where not `answered`. `Raises:` Unusable, DataError."""
        row = self._guarded(row) if self._guard else row
        if self.renderer is not None:
            messages = self._messages(row, answered)
            found = self._turns(self.renderer, messages, answered, row.get("tools"))
        else:
            prompt, completion = self._filled(row, answered)
            found = [Segment(prompt, False), Segment(completion, True)]
        if self.config.loss_on == "all" and answered:
            found = [segment._replace(trained=True) for segment in found]
        found = [segment for segment in found if segment.text]
        return self._guard.show(found) if self._guard else found

    def _guarded(self, row: Row) -> Row:
        assert self._guard is not None
        if "messages" in row:
            roles = [turn["role"] for turn in row["messages"]]
            turns = [self._guard.hide_all(turn) for turn in row["messages"]]
            hidden = [{**turn, "role": role} for turn, role in zip(turns, roles, strict=True)]
            self._open(hidden)
            return {**row, "messages": hidden, "tools": self._guard.hide_all(row.get("tools"))}
        return {**row, "fields": {k: self._guard.hide(v) for k, v in row["fields"].items()}}

    def _open(self, messages: list[Message]) -> None:
        """Put the places of a conversation's vector before the user's first words."""
        first = next((turn for turn in messages if turn["role"] == "user"), None)
        if first is not None:
            first["content"] = self._opening + first["content"]

    def _turns(
        self, renderer: Renderer, messages: list[Message], answered: bool, tools: Tools | None
    ) -> list[Segment]:
        """Return a conversation up to its last answer; or all before that, and the beginning of one."""
        if not answered:
            while messages and messages[-1]["role"] == "assistant":
                messages = messages[:-1]
            if not messages:
                raise Unusable("there is nothing to answer")
            return [Segment(renderer.text(messages, ask=True, tools=tools), False)]
        found = renderer.segments(messages, tools)
        if not any(segment.trained for segment in found):
            untrained = any(message["role"] == "assistant" for message in messages)
            raise Unusable(NOTHING if untrained else "no turn is the assistant's")
        last = max(i for i, segment in enumerate(found) if segment.trained)
        return found[: last + 1]

    def _filled(self, row: Row, answered: bool) -> tuple[str, str]:
        """Return prompt and completion. Spaces at the prompt's end go to the completion: as most tokenizers
        have it, they belong to the word that follows."""
        fields, form = row["fields"], self._form
        if self.config.template == "text":
            text = templates.fill(form.completion, fields)
            return ("", text) if answered else (text, "")
        lacks = form.optional is not None and not fields.get(form.optional)
        prompt = templates.fill(form.without if lacks else form.prompt, fields)
        completion = templates.fill(form.completion, fields) if answered else ""
        if self.renderer is not None:
            return prompt, completion
        bare = prompt.rstrip(" ")
        return bare, prompt[len(bare) :] + completion if answered else ""

    def _messages(self, row: Row, answered: bool) -> list[Message]:
        if self.config.template == "chat":
            return list(row["messages"])
        prompt, completion = self._filled(row, answered)
        asked = [{"role": "user", "content": prompt}]
        return [*asked, {"role": "assistant", "content": completion}] if answered else asked

    def _shorter(self, row: Row, excess: int) -> Row | None:
        """Return the row with what may be cut shortened by `excess` tokens or more; None where nothing is
        left to cut."""
        if self.config.template == "chat":
            return _fewer_turns(row) if self.config.shortened else None
        for name in self.config.shortened:
            if text := row["fields"].get(name):
                return {**row, "fields": {**row["fields"], name: self.encoder.cut(text, excess)}}
        return None


def _fewer_turns(row: Row) -> Row | None:
    """Return a conversation without its last answer and what came with it."""
    turns = row["messages"]
    answers = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    if len(answers) < 2:
        return None
    return {**row, "messages": turns[: answers[-2] + 1]}


def is_answered(row: Row) -> bool:
    """Return whether a row has an answer: its label, or in a chat a turn of the assistant, also where the
    user has the last word."""
    turns = row.get("messages", ())
    return row["label"] is not None or any(turn["role"] == "assistant" for turn in turns)


def to_train_on(built: Built, share: float) -> list[int]:
    """Return the rows that can be trained on.

    Raises:
        DataError: more than `share` of them cannot, or none can.
    """
    total, lost = len(built.examples), len(built.left_out)
    if lost > share * total or lost == total:
        reasons = ", ".join(
            f"{number}: {reason}"
            for reason, number in Counter(built.left_out.values()).most_common()
        )
        raise DataError(
            f"{lost} of {total} train rows cannot be trained on ({reasons}). Set task.max_length "
            f"higher, name a column that may be shortened in task.cut, mend the data, or let a larger "
            f"share be left out with task.max_left_out."
        )
    return [place for place in range(total) if place not in built.left_out]
