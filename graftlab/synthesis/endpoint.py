"""Answers of any endpoint that speaks OpenAI's chat completions: it may refuse, stall or answer nonsense."""

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass, field

from graftlab.contracts import Note
from graftlab.errors import Argument, ConfigError, ModelError, Place
from graftlab.synthesis.orders import Order, Unanswerable
from graftlab.terminal import redact

KEY = "OPENAI_API_KEY"
"""The variable of the environment that has the key, where the endpoint wants one."""
COMPLETIONS = "/chat/completions"
LONGEST_PAUSE = 60.0  # seconds
PASSING = (408, 425, 429)
"""Refusals that pass by themselves; others of the 400s are of the request."""


OF_ONE_TEXT = (400, 413, 422)
"""Refusals that may be of this text alone: it is too long, say."""


class Trouble(Exception):
    """An attempt that brought nothing, of a kind that passes."""

    def __init__(self, name: str, said: str, wait_s: float | None = None) -> None:
        """`wait_s` is how long the endpoint asks to wait."""
        super().__init__(said)
        self.name, self.wait_s = name, wait_s


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key and the texts go to the address that was given, and to no other."""

    def redirect_request(self, *_: object) -> None:
        """Return no request, which makes an error of the answer."""


@dataclass
class Endpoint:
    """An endpoint and what went wrong with it so far."""

    url: str
    """Up to `/v1`."""
    model: str
    max_new_tokens: int = 512
    attempts: int = 8
    pause_s: float = 1.0
    """Before the second attempt; doubled before each further one, unless the endpoint says how long."""
    timeout_s: float = 120.0
    troubles: Counter[str] = field(default_factory=Counter)
    """How often what went wrong."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            said = f"{self.url} is no address: http://localhost:8000/v1, say, is one."
            place = Place(argument=Argument("endpoint"))
            raise ConfigError(said, kind="not_allowed", place=place, given=self.url)

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is to be known of it beforehand: nothing."""
        return ()

    @property
    def identity(self) -> dict[str, object]:
        """What decides what it answers."""
        return {"endpoint": self.url, "model": self.model, "max_new_tokens": self.max_new_tokens}

    def write(self, order: Order) -> tuple[str, bool]:
        """Return an answer, and whether it was cut off.

        Raises:
            ModelError: no attempt was answered, or none ever will be.
            Unanswerable: the request was refused.
        """
        last = Trouble("no answer", "none was tried")
        for attempt in range(self.attempts):
            try:
                return self._ask(order)
            except Trouble as trouble:
                last = trouble
            with self._lock:
                self.troubles[last.name] += 1
            if attempt + 1 < self.attempts:
                pause = self.pause_s * 2**attempt if last.wait_s is None else last.wait_s
                time.sleep(min(LONGEST_PAUSE, pause))
        raise self._failed(f"{self.attempts} attempts, the last: {last}")

    def _ask(self, order: Order) -> tuple[str, bool]:
        """Return what one attempt brings.

        Raises:
            Trouble: nothing.
            Unanswerable: it refuses this text, or all of them.
            ModelError: none ever will bring anything.
        """
        try:
            opener = urllib.request.build_opener(Stay)
            with opener.open(self._request(order), timeout=self.timeout_s) as reply:
                return _read(reply.read())
        except urllib.error.HTTPError as error:
            if 300 <= error.code < 400:
                raise self._moved(error) from error
            said = f"{error.code}: {_words(error)}"
            if error.code in OF_ONE_TEXT:
                raise Unanswerable(f"refused ({error.code})", self._failed(said)) from error
            if 400 <= error.code < 500 and error.code not in PASSING:
                raise self._failed(said) from error
            wait = _seconds(error.headers.get("Retry-After"))
            raise Trouble(str(error.code), said, wait) from error
        except (
            OSError,
            http.client.HTTPException,
        ) as error:  # nobody there, silence, half an answer
            raise Trouble("no answer", f"{type(error).__name__} {error}") from error

    def _failed(self, why: str) -> ModelError:
        counted = ", ".join(f"{name} {count}" for name, count in sorted(self.troubles.items()))
        return ModelError(
            f"{self.url} gives no answer of {self.model}: {redact(why)} (so far: {counted or 'nothing'}).",
            ("What it has answered is kept: call the same again, and it goes on.",),
            kind="endpoint",
            given=self.url,
        )

    def _moved(self, error: urllib.error.HTTPError) -> ModelError:
        """Return the error to raise where the endpoint sends on to another address."""
        to = urllib.parse.urljoin(error.url, error.headers.get("Location") or "")
        meant = redact(to.removesuffix(COMPLETIONS))
        return ModelError(
            f"{self.url} sends on to {redact(to)} ({error.code}). Neither text nor key was sent there.",
            (
                f"If {meant} is to have both, give that address with ",
                Argument("endpoint", meant),
                ".",
            ),
            kind="redirected",
            given=self.url,
        )

    def _request(self, order: Order) -> urllib.request.Request:
        asked = {
            "model": self.model,
            "messages": [{"role": "user", "content": order.message}],
            "temperature": order.temperature,
            "top_p": order.top_p,
            "seed": order.seed,
            "max_tokens": self.max_new_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        address = f"{self.url.rstrip('/')}{COMPLETIONS}"
        return urllib.request.Request(address, json.dumps(asked).encode(), headers)


def _read(data: bytes) -> tuple[str, bool]:
    """Return what an answer holds. `Raises:` Trouble: it is of another schema."""
    try:
        [choice, *_] = json.loads(data)["choices"]
        content, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"not a chat completion: {data[:80]!r} ({type(error).__name__} {error})"
        raise Trouble("another schema", said) from error
    if content is None and reason == "length":  # all went into thoughts, which stand elsewhere
        return "", True
    if not isinstance(content, str):
        raise Trouble("another schema", f"not a chat completion: its content is {content!r:.60}")
    return content.strip(), reason == "length"


def _seconds(header: str | None) -> float | None:
    """Return how long the endpoint asks to wait, where it says so in seconds."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:  # a date
        return None


def _words(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(500).decode("utf-8", "replace") or str(error.reason)
    except (OSError, http.client.HTTPException):
        return str(error.reason)
