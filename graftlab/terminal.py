"""What a terminal is shown: texts of data, models and files cannot steer it, and no secret is repeated.

All that the commands show goes through here: `say` and `say_json` on the standard output, `tell` on the
standard error, `console` for tables.
"""

import contextlib
import errno
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult

# Control characters but tab and line feed; soft hyphen; what turns the direction of writing; what has no
# width, but for the joiners that Persian and emoji need; separators of lines; halves of surrogates; tags.
STEERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
SECRET = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|APIKEY|KEY)(_|$)")
"""Names of variables whose values are not repeated."""
MIN_SECRET = 8  # characters; replacing a shorter value would black out ordinary words
UNREAD = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of a stream that nobody reads any more."""
HIDDEN = re.compile(
    r"hf_[A-Za-z0-9]{8,}|(?<=://)[^/@\s]+(?=@)|(?<=[?&]password=)[^&\s]+|(?<=[?&]sslpassword=)[^&\s]+"
)
"""A token of the hub, and a password in an address, wherever they come from."""


def visible(text: str) -> str:
    """Return the text with the characters that would steer a terminal escaped."""
    return STEERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def redact(text: str) -> str:
    """Return the text without the secrets that stand in the environment; each is named instead."""
    for name, value in _secrets():
        text = text.replace(value, f"<{name}>")
    return HIDDEN.sub("***", text)


def _secrets() -> list[tuple[str, str]]:
    """Return the secrets of the environment, the longest first: one may be a part of another."""
    found = [
        (name, value)
        for name, value in os.environ.items()
        if len(value) >= MIN_SECRET and SECRET.search(name.upper())
    ]
    return sorted(found, key=lambda item: -len(item[1]))


def shown(text: str) -> str:
    """Return the text as a terminal may be given it."""
    return visible(redact(text))


def say(text: str = "", end: str = "\n", flush: bool = False) -> None:
    """Write a text to the standard output."""
    print(shown(text), end=end, flush=flush)


def tell(text: str) -> None:
    """Write a text to the standard error, if anybody reads it."""
    # sys.stderr is looked up anew: rich puts its own there while a bar is drawn
    with contextlib.suppress(OSError, ValueError):
        print(shown(text), file=sys.stderr, flush=True)


def say_json(value: object) -> None:
    """Write one line of JSON, which reads back equal; in ASCII where the output does not take UTF-8.

    What is not finite becomes null, as in the files of a run.
    """
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    try:
        text = json.dumps(value, ensure_ascii=not utf8, allow_nan=False, default=str)
    except ValueError:
        plain = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
        text = json.dumps(plain, ensure_ascii=not utf8)
    print(redact(STEERS.sub(_escaped, text)))


def _escaped(found: re.Match[str]) -> str:
    """Return a character as JSON escapes it."""
    return json.dumps(found[0])[1:-1]


class Stream:
    """A stream that falls silent, rather than raise, when it cannot be written any more."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.silent = False
        self.error: OSError | None = None
        """Why, where it is not that nobody reads it."""

    def __getattr__(self, name: str) -> Any:  # isatty, encoding, fileno: as the stream has them
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        known = str.encode(text, encoding, "backslashreplace").decode(encoding)
        self._attempt(lambda: self._stream.write(known))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except (AttributeError, OSError, ValueError):  # it is closed, or hardly a stream
            return False

    def _attempt(self, call: Callable[[], object]) -> None:
        if self.silent:
            return
        try:
            call()
        except (
            OSError,
            ValueError,
        ) as error:  # a terminal that is gone, a full disk, a closed file
            self.silent = True
            if isinstance(error, OSError) and error.errno not in UNREAD:
                self.error = error
            with contextlib.suppress(OSError, ValueError):
                # What is still buffered would break the interpreter's exit (status 120).
                descriptor = os.open(os.devnull, os.O_WRONLY)
                os.dup2(descriptor, self._stream.fileno())
                os.close(descriptor)


def open_standard() -> Stream:
    """Have the three standard streams open, whatever this process was started with; return its output.

    Where one is closed, the first file that is opened would take its number, and what is printed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  (stays)
        # a locale without UTF-8 must not stop a run
        if name != "stdin" and isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    out = Stream(sys.stdout)
    sys.stdout = out
    return out


class _Shown:
    """What a console prints, each of its texts as a terminal may be given it."""

    def __init__(self, renderable: "ConsoleRenderable") -> None:
        self.renderable = renderable

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.segment import Segment

        for piece in console.render(self.renderable, options):
            yield piece if piece.control else Segment(shown(piece.text), piece.style)


class _Hook:
    def process_renderables(
        self, renderables: "Sequence[ConsoleRenderable]"
    ) -> "list[ConsoleRenderable]":
        return [_Shown(renderable) for renderable in renderables]


def console(stderr: bool = False, width: int | None = None) -> "Console":
    """Return a console for tables. Brackets and colons in names are not markup, and lines are not wrapped."""
    from rich.console import Console

    made = Console(
        stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False, width=width
    )
    made.push_render_hook(_Hook())  # type: ignore[arg-type]  # has what rich calls of a hook
    return made


class Pace:
    """Tells on the standard error how far a long job has come, every few seconds."""

    EVERY_S = 5.0

    def __init__(
        self, what: str, total: int, done: int = 0, quiet: bool = False, short: bool = True
    ) -> None:
        """`what` is counted, in the plural; `done` of them were there before this job. The end is told in any
        case, unless not of a `short` job."""
        self._what, self._total, self._began_with, self._quiet = what, total, done, quiet
        self._last = short
        self._began = self._told = time.monotonic()

    def at(self, done: int) -> None:
        """Take note of how many are done, and tell it where that is due."""
        now = time.monotonic()
        ended = done == self._total and (self._last or self._told > self._began)
        if self._quiet or (now - self._told < self.EVERY_S and not ended):
            return
        self._told = now
        speed = (done - self._began_with) / max(now - self._began, 1e-9)
        left = (self._total - done) / speed if speed > 0 else 0.0
        tell(f"{done:,} of {self._total:,} {self._what}, {speed:,.1f} a second, {left:,.0f} s left")
