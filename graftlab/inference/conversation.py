"""A conversation with a run's model, whose answers are shown while they are written."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab import runfile
from graftlab.contracts import Data, Excused
from graftlab.errors import Argument, ConfigError, DataError, Place
from graftlab.inference import subject
from graftlab.inference.adapted import Adapted, load
from graftlab.inference.settings import settings
from graftlab.inference.subject import About
from graftlab.rundir import run as rundir
from graftlab.runfile import RunFile
from graftlab.tasks.generation import templates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Show = Callable[[str], None]
"""Is given each piece of an answer as soon as it is written."""
TOO_LONG = "too_long"
"""The kind of error of a conversation with a vector that does not fit: nothing of it may be cut."""
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what is decoded of a character with bytes still to come


@dataclass
class Conversation:
    """Turns of a user and a run's model.

    With a chat template the model reads all of them. Without one each is answered for itself, in the
    run's own template: nothing else was trained.
    """

    adapted: Adapted
    changed: Mapping[str, object] = field(default_factory=dict)
    """Fields of `task.generation` that are other than in the run."""
    turns: list[dict[str, str]] = field(default_factory=list)
    """`role` and `content`, in order; empty without a chat template."""
    system: str | None = None
    vector: "NDArray[np.float32] | None" = None
    """What a run that reads vectors is asked about: it stands in the first turn that is read."""

    def __post_init__(self) -> None:
        section = settings(self.adapted.file, False, {"samples": 1, **self.changed})
        self.section = section
        if self.has_memory:
            limit = self.adapted.backbone.max_length
            assert limit is not None
            room = limit - section.generation.max_new_tokens
            if room < 1:
                raise ConfigError(
                    f"max_new_tokens {section.generation.max_new_tokens} leaves no room for a question: "
                    f"the model has {limit} positions.",
                    kind="no_room",
                )
            about = {} if self.vector is not None else {"cut": ()}
            self.system = getattr(section, "system", None)
            self.section = section.model_copy(update={**about, "max_length": room})

    @property
    def has_memory(self) -> bool:
        """The run has a chat template, so that the model reads what was said before."""
        return bool(self.section.chats)

    def forget(self) -> None:
        """Begin anew; the system turn stays."""
        self.turns.clear()

    def rename(self, system: str | None) -> None:
        """Begin anew with another system turn, or with none."""
        self.system = system
        self.forget()

    def ask(self, text: str, show: Show) -> tuple[str, int]:
        """Return the answer, and how many turns were too old to be read.

        An answer that is interrupted stands in the conversation as far as it went.

        Raises:
            KeyboardInterrupt: somebody has had enough of the answer.
            DataError: the text cannot be laid out by the template.
        """
        if not self.has_memory:
            return self._written(self.section, self._question(text), show), 0
        said: list[str] = []

        def keep(piece: str) -> None:
            said.append(piece)
            show(piece)

        before, forgotten = list(self.turns), 0
        self.turns.append({"role": "user", "content": self._content(text)})
        try:
            section = self._as_chat()
            while self._too_long(section) and len(self.turns) > 2:
                del self.turns[:2]
                forgotten += 2
            answer = self._written(section, self._said(self.turns), keep)
        except KeyboardInterrupt:
            self.turns.append({"role": "assistant", "content": "".join(said)})
            raise
        except Exception:
            self.turns = before
            raise
        self.turns.append({"role": "assistant", "content": answer})
        return answer, forgotten

    def answer_of_base(self, text: str, show: Show) -> str:
        """Return what the model answers without its adapter. The conversation stays as it is.

        Raises:
            ModelError: the method cannot be turned off.
        """
        method = self.adapted.file.method.module
        with method.off(self.adapted.model):
            if not self.has_memory:
                return self._written(self.section, self._question(text), show)
            asked = [*self.turns, {"role": "user", "content": self._content(text)}]
            return self._written(self._as_chat(), self._said(asked), show)

    def words_of(self, task_type: str) -> str:
        """Return the words in which a run that reads vectors asks for a task type.

        Raises:
            DataError: there is no such task type, or more than words is wanted.
        """
        asked = {"vector": self.vector, "task_type": task_type}
        [row] = self.adapted.file.task.module.read_inputs(self.section, [asked])
        words: str = row["fields"]["prompt"]
        return words

    def _question(self, text: str) -> object:
        """Return a question that is answered for itself, as an input."""
        return text if self.vector is None else {"vector": self.vector, "query": text}

    def _said(self, turns: Sequence[Mapping[str, str]]) -> object:
        """Return turns as an input."""
        if self.vector is None:
            return list(turns)
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return {"vector": self.vector, "messages": [*system, *turns]}

    def _content(self, text: str) -> str:
        """Return a user's turn: of a run with a prompt, that with the text in it."""
        if self.vector is not None or self.section.template == "chat":
            return text
        [row] = self.adapted.file.task.module.read_inputs(self.section, [text])
        form, fields = self.section.filled, row["fields"]
        lacks = form.optional is not None and not fields.get(form.optional)
        return templates.fill(form.without if lacks else form.prompt, fields)

    def _as_chat(self) -> Any:
        """Return the section for rows that are conversations."""
        if self.vector is not None:
            return self.section
        plain = {"template": "chat", "prompt": None, "completion": None, "chat_template": False}
        return self.section.model_copy(update={**plain, "system": self.system})

    def _too_long(self, section: object) -> bool:
        try:
            task = self._bound(section, self._said(self.turns))
        except DataError as error:
            if error.problems[0].kind != TOO_LONG:
                raise
            return True
        return bool(task.record["too_long"].get("input"))

    def _bound(self, section: Any, item: object) -> Any:
        rows = self.adapted.file.task.module.read_inputs(section, [item])
        return self.adapted.bind(Data({"input": rows}, self.adapted.problem), section)

    def _written(self, section: Any, item: object, show: Show) -> str:
        task = self._bound(section, item)
        streamer = Streamer(self.adapted.backbone.processor, section.generation.stop, show)
        with self.adapted.precision(), streaming(self.adapted.model, streamer) as model:
            [written] = task.complete(model, "input", [0])
        answer: str = written["prediction"]
        streamer.finish(answer)
        return answer


def begin(
    path: Path,
    changed: Mapping[str, object],
    system: str | None = None,
    about: About | None = None,
    base: bool = False,
) -> Conversation:
    """Return a conversation with a finished run's model, whose `system` turn may be another than the run's.
    One that reads vectors is asked `about` one; with `base` it is also to answer without its adapter.

    Raises:
        ConfigError: before the model is loaded: it writes no texts, it has no chat template to put a system
            turn into, a setting is not allowed, or a vector is wanted or is not.
        DataError: the vector is not like the run's.
        ModelError: its backbone cannot be had, or it cannot answer without its adapter.
    """
    run = rundir.find(path)
    file = runfile.of_run(run)
    if not hasattr(file.task.config, "generation"):
        raise ConfigError(
            f"{path} is of the kind {file.task.name}; a chat is with one of generation."
        )
    section = settings(file, False, changed)
    if system is not None and not section.chats:
        raise ConfigError(
            f"system: {path} has no chat template, so it knows no system turn.", kind="no_template"
        )
    if base:
        _check_base(file)
    vector = subject.vector_of(run, file, about)
    talk = Conversation(load(path), changed, vector=vector)
    if system is not None:
        talk.rename(system)
    return talk


def _check_base(file: RunFile) -> None:
    """Refuse to compare with a backbone that cannot be had back. `Raises:` ConfigError."""
    kept = file.method.module.PROMISES.turns_off
    if isinstance(kept, Excused):
        place = Place(argument=Argument("base", True))
        said = f"the method {file.method.name} cannot be turned off: {kept.reason}."
        raise ConfigError(said, ("Leave it out.",), place=place, kind="conflict")


class Streamer:
    """Is given tokens as `generate` makes them (transformers' interface), and shows the text that is sure.

    What may still become a stop text, or a character, is held back; white space in front is left out.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...], show: Show) -> None:
        self._tokenizer, self._stop, self._show = tokenizer, stop, show
        self._ids: list[int] = []
        self._prompt = True
        self._shown = ""

    def put(self, value: "Tensor") -> None:
        if self._prompt:  # comes first, as one
            self._prompt = False
            return
        self._ids += value.reshape(-1).tolist()
        text = self._tokenizer.decode(
            self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        ).lstrip()
        self._add(self._sure(text))

    def end(self) -> None:
        """Do nothing: `finish` knows the whole answer."""

    def finish(self, answer: str) -> None:
        """Show the rest of the answer."""
        self._add(answer.lstrip())

    def _add(self, text: str) -> None:
        if text.startswith(self._shown) and len(text) > len(self._shown):
            self._show(text[len(self._shown) :])
            self._shown = text

    def _sure(self, text: str) -> str:
        for stop in self._stop:
            text = text.partition(stop)[0]
        text = text.rstrip(UNFINISHED)
        starts = (stop[:n] for stop in self._stop for n in range(1, len(stop)))
        longest = max((len(start) for start in starts if text.endswith(start)), default=0)
        return text[: len(text) - longest] if longest else text


@contextlib.contextmanager
def streaming(model: Any, streamer: Streamer) -> Iterator[object]:
    """Give the model with a `generate` that tells the streamer, for the time of a `with` block."""
    generate = model.generate

    def told(*arguments: object, **options: object) -> Any:
        return generate(*arguments, **options, streamer=streamer)

    vars(model)["generate"] = told
    try:
        yield model
    finally:
        del vars(model)["generate"]
