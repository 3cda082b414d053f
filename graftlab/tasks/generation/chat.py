"""Conversations rendered by a chat template, with the places of the assistant's turns in the text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.data.labels import Unusable
from graftlab.errors import ConfigError, DataError
from graftlab.tasks._time import TookTooLong, limited
from graftlab.tasks.generation.turns import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 1.0  # of computing; a conversation takes milliseconds
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
MARKS = re.compile(r"<\|[^|<>\s{}]{1,40}\|>|<(?:start|end)_of_turn>")
"""What looks like a special token in the text of a template: ChatML's, Llama 3's, Gemma's."""


VECTOR = "\U0010fffd"
"""Stands in a template where the row's vector goes. No row's text can hold it: `Guard` keeps it apart."""

Tools = Sequence[Mapping[str, Any]]


def before_words(num_vectors: int) -> str:
    """Return what stands before the words of a prompt with so many places of its vector; "" of none."""
    return f"{VECTOR * num_vectors}\n" if num_vectors else ""


class Segment(NamedTuple):
    """A stretch of an example's text."""

    text: str
    trained: bool
    """Whether it is the assistant's."""
    plain: bool = True
    """Whether what spells a special token in it is text."""
    vector: bool = False
    """Whether it is no text, but the place of a vector."""


def template_of(tokenizer: Any, file: Path | None) -> str:
    """Return the chat template's text: the file's, or the tokenizer's own.

    Raises:
        ConfigError: there is none, or the file cannot be read.
    """
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"task.chat_template_file: {file} cannot be read ({error})."
            ) from None
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "the backbone's tokenizer has no chat template. Give one as task.chat_template_file, take an "
            "instruction-tuned backbone, or use task.prompt and task.completion.",
            kind="no_template",
        )
    found: str = tokenizer.get_chat_template()
    return found


class Renderer:
    """Renders conversations and finds the assistant's turns in them."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", template: str, system: str | None = None
    ) -> None:
        from transformers.utils.chat_template_utils import render_jinja_template

        self._render: Any = render_jinja_template
        self._tokenizer = tokenizer
        self.template, self.system = template, system
        self._marks = bool(GENERATION.search(template))

    def unknown_marks(self) -> list[str]:
        """Return what looks like a special token in the template, and is none of the tokenizer."""
        known = self._tokenizer.get_vocab()
        return [mark for mark in dict.fromkeys(MARKS.findall(self.template)) if mark not in known]

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        turns = [{k: v for k, v in turn.items() if k != "trained"} for turn in messages]
        if self.system is None or (turns and turns[0]["role"] in ("system", "developer")):
            return turns
        return [{"role": "system", "content": self.system}, *turns]

    def text(
        self, messages: Sequence[Message], ask: bool = False, tools: Tools | None = None
    ) -> str:
        """Return the conversation as one text; `ask` begins the assistant's next turn.

        Raises:
            ConfigError: the template is none.
            Unusable: the template refuses it (roles out of order), or does not write tools.
        """
        return self._rendered(messages, ask, tools=tools)[0]

    def _rendered(
        self,
        messages: Sequence[Message],
        ask: bool = False,
        marks: bool = False,
        tools: Tools | None = None,
    ) -> tuple[str, list[tuple[int, int]]]:
        from jinja2 import TemplateError, TemplateSyntaxError

        called = any("tool_calls" in turn for turn in messages)
        for there, name in ((tools, "tools"), (called, "tool_calls")):
            if there and name not in self.template:
                raise Unusable(f"it has {name}, which the chat template does not write")
        try:
            with limited(SECONDS):
                texts, places = self._render(
                    [self._with_system(messages)],
                    tools=tools,
                    chat_template=self.template,
                    add_generation_prompt=ask,
                    return_assistant_tokens_mask=marks,
                    **self._tokenizer.special_tokens_map,
                )
        except TookTooLong:
            raise ConfigError(
                f"the chat template is not done with a conversation of {len(messages)} turns after "
                f"{SECONDS:g} s: it loops. Mend it, or give another as task.chat_template_file.",
                kind="endless",
            ) from None
        except OverflowError as error:  # the sandbox's, of a range
            raise ConfigError(f"the chat template: {error}.", kind="endless") from None
        except TemplateSyntaxError as error:
            raise ConfigError(f"the chat template, line {error.lineno}: {error.message}.") from None
        except (TemplateError, TypeError, ValueError) as error:  # TypeError: a filter's own
            raise Unusable(f"the chat template refuses it: {error}") from None
        return texts[0], [(int(a), int(b)) for a, b in places[0]] if marks else []

    def segments(self, messages: Sequence[Message], tools: Tools | None = None) -> list[Segment]:
        """Return the conversation's text, parted where a trained turn of the assistant begins or ends.

        Raises:
            DataError: the template renders a turn otherwise once another follows, so that its place cannot
                be known.
            Unusable: the template refuses the conversation.
        """
        turns = [turn for turn, m in enumerate(messages) if m["role"] == "assistant"]
        if self._marks:
            text, places = self._rendered(messages, marks=True, tools=tools)
            if len(places) != len(turns):
                raise Unusable(
                    f"the chat template marks {len(places)} of {len(turns)} turns of the assistant"
                )
        else:
            text = self.text(messages, tools=tools)
            places = [self._place(messages, turn, text, tools) for turn in turns]
        trained = [
            place
            for place, turn in zip(places, turns, strict=True)
            if messages[turn].get("trained", True)
        ]
        return parted(text, trained)

    def _place(
        self, messages: Sequence[Message], turn: int, text: str, tools: Tools | None
    ) -> tuple[int, int]:
        """Return where an assistant's turn stands in the text of the whole conversation."""
        upto = self.text(messages[: turn + 1], tools=tools)
        if turn == 0 and self.system is None:
            before = self._opening(upto, messages[0])
        else:
            before = self.text(messages[:turn], ask=True, tools=tools)
        if not (upto.startswith(before) and text.startswith(upto)):
            whole, part = (upto, before) if not upto.startswith(before) else (text, upto)
            same = next((i for i, (a, b) in enumerate(zip(whole, part, strict=False)) if a != b), 0)
            raise DataError(
                f"the chat template renders the beginning of a conversation otherwise once it goes on, so "
                f"the assistant's turn {turn + 1} has no place of its own: {part[same : same + 60]!r} "
                f"becomes {whole[same : same + 60]!r}. Give a template with {{% generation %}} around the "
                f"assistant's turns as task.chat_template_file, or conversations with one answer each."
            )
        return len(before), len(upto)

    def _opening(self, text: str, first: Message) -> str:
        """Return what stands before the answer where the assistant speaks first: up to what begins its
        turns elsewhere, or up to its words where nothing does."""
        asked = [{"role": "user", "content": "a"}]
        begins = self.text(asked, ask=True).removeprefix(self.text(asked))
        said = text.find(first["content"].strip())
        place = text.find(begins) if begins else -1
        if begins and place >= 0 and (said < 0 or place + len(begins) <= said):
            return text[: place + len(begins)]
        return text[: max(said, 0)]


class Guard:
    """Keeps what spells a special token in a row's text apart from the template's own special tokens.

    Before a template is filled, each is replaced by two characters for private use, and put back afterwards.
    """

    ESCAPE = "\U0010fffc"
    """Stands before each character that stands for something, itself where a text has it."""
    FIRST = 0xF0000  # Supplementary Private Use Area-A: 65 534 characters

    def __init__(self, special: Iterable[str]) -> None:
        self._texts = sorted({*special, VECTOR, self.ESCAPE}, key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, self._texts)))
        marks = (self.ESCAPE + chr(self.FIRST + i) for i in range(len(self._texts)))
        self._marks = dict(zip(self._texts, marks, strict=True))

    def hide(self, text: str) -> str:
        """Return the text without special tokens."""
        return self._find.sub(lambda found: self._marks[found[0]], text)

    def hide_all(self, value: Any) -> Any:
        """Return a value of JSON with all its texts hidden."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, Mapping):
            return {key: self.hide_all(item) for key, item in value.items()}
        return [self.hide_all(item) for item in value] if isinstance(value, list) else value

    def show(self, segments: Iterable[Segment]) -> list[Segment]:
        """Return the segments with the hidden tokens as plain ones of their own."""
        texts = {mark: text for text, mark in self._marks.items()}
        last = chr(self.FIRST + len(self._texts) - 1)
        pattern = f"({self.ESCAPE}[{chr(self.FIRST)}-{last}]|{VECTOR})"
        found = []
        for segment in segments:
            for piece in re.split(pattern, segment.text):
                if piece == VECTOR:
                    found.append(Segment(piece, False, vector=True))
                elif piece in texts:
                    found.append(Segment(texts[piece], segment.trained))
                elif piece:
                    found.append(Segment(piece, segment.trained, plain=False))
        return found


def parted(text: str, places: Sequence[tuple[int, int]]) -> list[Segment]:
    """Return the text in segments; `places` are those of the trained ones, in order."""
    found, end = [], 0
    for start, stop in places:
        if start > end:
            found.append(Segment(text[end:start], False))
        found.append(Segment(text[start:stop], True))
        end = stop
    if text[end:]:
        found.append(Segment(text[end:], False))
    return [segment for segment in found if segment.text]
