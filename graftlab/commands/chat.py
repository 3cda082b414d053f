"""Talk to a run's model in the terminal."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlab.commands._options import Json, RunFolder
from graftlab.commands._vector_options import EmbedderModel, OtherEmbedder, Pooling
from graftlab.commands._writer_options import (
    MaxNewTokens,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    changes,
)
from graftlab.terminal import say, say_json, tell

if TYPE_CHECKING:
    from graftlab.inference.conversation import Conversation

HELP = (
    "/reset begins anew, /system TEXT says who the model is (without a text: nobody), /exit leaves."
)


def command(
    run: RunFolder,
    base: Annotated[
        bool, typer.Option("--base", help="Also show what the model says without its adapter.")
    ] = False,
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", help="Who the model is, for a chat template."),
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    stop: Stop = None,
    seed: Seed = None,
    embedding: Annotated[
        Path | None,
        typer.Option(
            "--embedding",
            metavar="FILE",
            help="Of a run that reads vectors: a file with the one that it is asked about.",
        ),
    ] = None,
    row: Annotated[
        int | None, typer.Option("--row", min=0, help="Which vector of that file, from 0.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            "--text", metavar="TEXT", help="In its place: a text, which becomes a vector first."
        ),
    ] = None,
    embedder: EmbedderModel = None,
    other_embedder: OtherEmbedder = False,
    pooling: Pooling = None,
    as_json: Json = False,
) -> None:
    """Talk to a run's model in the terminal: a line is a question, and its answer appears as it is written.

    /reset, /system TEXT and /exit are commands; Ctrl-C ends an answer. Questions may come through a pipe.
    With --json, one object for each question. A run that reads vectors is asked about one; there /task NAME
    asks in the words of a task type.
    """
    from graftlab.inference import conversation, vectors
    from graftlab.inference.subject import About

    written = changes(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        stop=stop,
        seed=seed,
    )
    reading = vectors.Reading(embedder=embedder, other_embedder=other_embedder, pooling=pooling)
    about = About(embedding, row, text, reading)
    talk = conversation.begin(run, written, system, about, base)
    if not as_json:
        _say(f"{talk.adapted.file.name}: {HELP}")
        if talk.vector is not None:
            _say("/task NAME asks in the words of a task type (summary, keywords, ...).")
        if not talk.has_memory:
            _say("This run has no chat template: each question is answered for itself.")
    for line in _lines():
        asked = _asked_for(talk, line)
        if asked is not None and not _command(talk, asked):
            _answer(talk, asked, base, as_json)


def _lines() -> Iterator[str]:
    """Yield what is typed or piped, without blank lines; end with the input, or with /exit."""
    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else sys.stdin.readline()
        except EOFError:
            return
        except KeyboardInterrupt:
            _say("\n(/exit leaves)")
            continue
        if not line and not sys.stdin.isatty():
            return
        line = line.strip()
        if line == "/exit":
            return
        if line:
            yield line


def _asked_for(talk: "Conversation", line: str) -> str | None:
    """Return the line, or the words of the task type that it names; None where there is none of that name."""
    from graftlab.errors import DataError

    name, _, kind = line.partition(" ")
    if name != "/task" or talk.vector is None:
        return line
    try:
        return talk.words_of(kind.strip())
    except DataError as error:
        _say(f"({error})")
        return None


def _command(talk: "Conversation", line: str) -> bool:
    """Carry out a command; return whether the line was one."""
    name, _, text = line.partition(" ")
    if name == "/reset":
        talk.forget()
        _say("(a new conversation)")
    elif name == "/system":
        if talk.has_memory:
            talk.rename(text.strip() or None)
            _say("(a new conversation)")
        else:
            _say("(this run has no chat template, so it knows no system turn)")
    elif name.startswith("/") and name[1:].isalpha():
        _say(f"(unknown command {name}; {HELP})")
    else:
        return False
    return True


def _answer(talk: "Conversation", line: str, base: bool, as_json: bool) -> None:
    """Answer a question."""
    from graftlab.errors import DataError

    answers: dict[str, object] = {"question": line}
    show = _hide if as_json else _show
    try:
        if base:
            _label("base: ", as_json)
            answers["base"] = talk.answer_of_base(line, show)
            _label("\nadapter: ", as_json)
        answers["answer"], forgotten = talk.ask(line, show)
    except KeyboardInterrupt:
        _say("\n(stopped)")
        return
    except DataError as error:
        _say(f"({error})")
        return
    if as_json:
        say_json(answers)
    else:
        say(flush=True)
    if forgotten:
        _say(f"(the first {forgotten} turns no longer fit, and are forgotten)")


def _label(text: str, as_json: bool) -> None:
    if not as_json:
        say(text, end="", flush=True)


def _show(piece: str) -> None:
    """Print a piece of an answer."""
    say(piece, end="", flush=True)


def _hide(piece: str) -> None:
    """Print nothing: the answer comes whole."""


def _say(text: str) -> None:
    """Print what is no answer."""
    tell(text)
