"""One range of a file over HTTP, gone on with where the connection broke off."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from graftlab.errors import ModelError
from graftlab.weights.hub import explain
from graftlab.weights.layers.source import Counter

PATIENCE = 30.0  # seconds without a byte, after which an answer counts as broken off
TRIES = 5  # in a row without a byte; each goes on where the last one broke off
PAUSE = 0.5  # seconds before the second try; doubled before each further one
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class NoRanges(Exception):
    """The server answers with the whole file where a part was asked for."""


class File(NamedTuple):
    """A file of a model on the hub."""

    hub_id: str
    name: str
    url: str
    headers: dict[str, str]


class Answer:
    """Bytes `start` to `stop` of what is at an address; close it after use."""

    def __init__(self, file: File, start: int, stop: int, counter: Counter) -> None:
        """Ask for them.

        Raises:
            NoRanges: the server does not know ranges; nothing of the file was read.
            ModelError: the file ends before, or the hub does not give it; the message says why.
        """
        self.size = 0
        """Of the whole file, in bytes."""
        self._file, self._at, self._stop, self._counter = file, start, stop, counter
        self._chunks: Iterator[bytes] | None = None
        self._response = ExitStack()
        try:
            self._rest = self._next()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._response.close()

    def read_into(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            chunk = self._rest or self._next()
            taken = min(len(chunk), len(view) - done)
            view[done : done + taken] = chunk[:taken]
            self._rest = chunk[taken:]
            done += taken

    def _next(self) -> memoryview:
        """Return the next bytes as they come; ask again for the rest where the connection breaks."""
        from huggingface_hub.errors import (  # type: ignore[attr-defined]
            HfHubHTTPError,
            HTTPError,
            OfflineModeIsEnabled,
        )

        for attempt in range(1, TRIES + 1):
            try:
                if self._chunks is None:
                    self._chunks = self._ask()
                if chunk := next(self._chunks, b""):
                    self._at += len(chunk)
                    self._counter.add(len(chunk))
                    return memoryview(chunk)
                raise ModelError(f"{self._where()} ends {self._stop - self._at} bytes too early")
            except OfflineModeIsEnabled as error:
                raise ModelError(self._explain(error)) from error
            except HTTPError as error:
                self._response.close()
                self._chunks = None
                status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
                if attempt == TRIES or (status is not None and status not in PASSING):
                    raise ModelError(self._explain(error)) from error
                time.sleep(PAUSE * 2 ** (attempt - 1))
        raise AssertionError

    def _ask(self) -> Iterator[bytes]:
        from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

        wanted = f"bytes={self._at}-{self._stop - 1}"
        headers = {**self._file.headers, "Range": wanted, "Accept-Encoding": "identity"}
        response = self._response.enter_context(
            get_session().stream("GET", self._file.url, headers=headers, timeout=PATIENCE)
        )
        said = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", "")
        )
        if said and int(said[2]) < self._stop:  # 416, or less than was asked for
            raise ModelError(
                f"{self._where()} is damaged: {said[2]} bytes instead of at least {self._stop}",
                kind="damaged",
            )
        if response.status_code >= 400:
            response.read()
            hf_raise_for_status(response)
        if response.status_code != 206 or not said or int(said[1] or -1) != self._at:
            if self.size:
                raise ModelError(f"{self._where()} broke off, and is no longer given by ranges")
            raise NoRanges
        self.size = int(said[2])
        return iter(response.iter_raw())

    def _where(self) -> str:
        return f"{self._file.name} of {self._file.hub_id} on the hub"

    def _explain(self, error: Exception) -> str:
        from huggingface_hub.errors import EntryNotFoundError

        if isinstance(error, EntryNotFoundError):
            return f"{self._file.hub_id} lacks {self._file.name} on the hub, which its index names"
        return said_of(self._file.hub_id, None, error)


def said_of(hub_id: str, revision: str | None, error: Exception) -> str:
    """Return why the hub did not give a model, without the keys of a run file that has a backbone."""
    said = explain(hub_id, revision, error)
    return said.replace("as backbone.model", "instead").replace("backbone.", "the ")
