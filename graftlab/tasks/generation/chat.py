"""Conversations: read from `messages` or ShareGPT's turns, and rendered by a chat template, with the places
of the assistant's turns in the text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from graftlab.data.labels import Unusable
from graftlab.errors import ConfigError, DataError
from graftlab.tasks.classification import text_of

Message = dict[str, str]
"""`role` and `content`."""

ROLES = {  # of ShareGPT's files, beside those of chat templates
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
}
KNOWN = ("system", "user", "assistant", "tool", "developer")
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Segment(NamedTuple):
    """A stretch of an example's text."""

    text: str
    trained: bool
    """Whether it is the assistant's."""
    plain: bool = True
    """Whether what spells a special token in it is text."""


def messages_of(value: Any, column: str) -> list[Message]:
    """Return the turns of a conversation in either layout. `Raises:` Unusable."""
    if not isinstance(value, list | tuple) or not value:
        raise Unusable(f"column {column!r} is {value!r:.60}, not a list of turns")
    return [_message(turn, f"{column}[{place}]") for place, turn in enumerate(value)]


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise Unusable(f"{where} is {turn!r:.60}, not a turn with role and content")
    pair = ("from", "value") if "from" in turn else ("role", "content")
    if missing := [key for key in pair if key not in turn]:
        raise Unusable(f"{where} has no {missing[0]!r}; it has {', '.join(map(str, turn))}")
    said = str(turn[pair[0]])
    role = ROLES.get(said.lower(), said.lower())
    if role not in KNOWN:
        known = ", ".join((*KNOWN, *ROLES))
        raise Unusable(f"{where}: the role {said!r} is none of {known}")
    return {"role": role, "content": text_of({where: turn[pair[1]]}, where)}


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
            "instruction-tuned backbone, or use task.prompt and task.completion."
        )
    found: str = tokenizer.get_chat_template()
    return found


class Renderer:
    """Renders conversations and finds the assistant's turns in them."""

    def __init__(self, tokenizer: Any, template: str, system: str | None = None) -> None:
        from transformers.utils.chat_template_utils import render_jinja_template

        self._render: Any = render_jinja_template
        self._tokenizer = tokenizer
        self.template, self.system = template, system
        self._marks = bool(GENERATION.search(template))

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        if self.system is None or messages[0]["role"] in ("system", "developer"):
            return list(messages)
        return [{"role": "system", "content": self.system}, *messages]

    def text(self, messages: Sequence[Message], ask: bool = False) -> str:
        """Return the conversation as one text; `ask` begins the assistant's next turn.

        Raises:
            ConfigError: the template is none.
            Unusable: the template refuses it (roles out of order).
        """
        return self._rendered(messages, ask)[0]

    def _rendered(
        self, messages: Sequence[Message], ask: bool = False, marks: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        from jinja2 import TemplateError, TemplateSyntaxError

        try:
            texts, places = self._render(
                [self._with_system(messages)],
                chat_template=self.template,
                add_generation_prompt=ask,
                return_assistant_tokens_mask=marks,
                **self._tokenizer.special_tokens_map,
            )
        except TemplateSyntaxError as error:
            raise ConfigError(f"the chat template, line {error.lineno}: {error.message}.") from None
        except TemplateError as error:
            raise Unusable(f"the chat template refuses it: {error}") from None
        return texts[0], [(int(a), int(b)) for a, b in places[0]] if marks else []

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """Return the conversation's text, parted where an assistant's turn begins or ends.

        Raises:
            DataError: the template renders a turn otherwise once another follows, so that its place cannot
                be known.
            Unusable: the template refuses the conversation.
        """
        if self._marks:
            text, places = self._rendered(messages, marks=True)
        else:
            text = self.text(messages)
            places = [
                self._place(messages, turn, text)
                for turn, message in enumerate(messages)
                if message["role"] == "assistant"
            ]
        return parted(text, places)

    def _place(self, messages: Sequence[Message], turn: int, text: str) -> tuple[int, int]:
        """Return where an assistant's turn stands in the text of the whole conversation."""
        before = self.text(messages[:turn], ask=True) if turn else ""
        upto = self.text(messages[: turn + 1])
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


class Guard:
    """Keeps what spells a special token in a row's text apart from the template's own special tokens.

    Before a template is filled, each is replaced by a character for private use, and put back afterwards.
    """

    FIRST = 0xF0000  # Supplementary Private Use Area-A: 65 534 characters

    def __init__(self, special: Iterable[str]) -> None:
        self._texts = sorted(special, key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, self._texts)) or r"(?!)")
        self._marks = {text: chr(self.FIRST + i) for i, text in enumerate(self._texts)}

    def hide(self, text: str) -> str:
        """Return the text without special tokens."""
        return self._find.sub(lambda found: self._marks[found[0]], text)

    def show(self, segments: Iterable[Segment]) -> list[Segment]:
        """Return the segments with the hidden tokens as plain ones of their own."""
        first, last = chr(self.FIRST), chr(self.FIRST + max(0, len(self._texts) - 1))
        found = []
        for segment in segments:
            for piece in re.split(f"([{first}-{last}])", segment.text):
                if len(piece) == 1 and first <= piece <= last:
                    text = self._texts[ord(piece) - self.FIRST]
                    found.append(Segment(text, segment.trained))
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
