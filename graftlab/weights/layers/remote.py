"""The bytes of a model on the hub: by range requests, kept on disk where that is asked."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from graftlab.contracts import Note
from graftlab.errors import DiskError, ModelError
from graftlab.rundir import files
from graftlab.terminal import redact
from graftlab.weights.hub import TIMEOUT
from graftlab.weights.layers.kept import Kept
from graftlab.weights.layers.ranges import Answer, File, NoRanges, said_of
from graftlab.weights.layers.source import (
    INDEX,
    SINGLE,
    Counter,
    Header,
    Stream,
    find_index,
    header_length,
    open_at,
    read_header,
)

logger = logging.getLogger(__name__)


class Hub:
    """A model on the hub. A file that the hub's own cache has is read there."""

    remote, gap, workers = True, 1 << 16, 8  # 64 KiB: what comes in the time that a request takes

    def __init__(self, hub_id: str, revision: str | None, cache: Path | None, keep: bool) -> None:
        """Fetch config.json and the index.

        Raises:
            ModelError: the hub and its cache do not have them; the message says why.
            Refused: the weights are pickles.
        """
        from huggingface_hub import constants

        self.name, self._keep = hub_id, keep
        self.notes: list[Note] = []
        self._counter = Counter()
        self.folder, self.index = self._open(revision)
        self.revision = self.folder.name
        root = cache or Path(constants.HF_HOME) / "graftlab-layers"
        self._kept = Kept(root / hub_id.replace("/", "--") / self.revision, self._counter)

    @property
    def bytes_read(self) -> int:
        return self._counter.total

    def text(self, name: str) -> bytes:
        content = (self.folder / name).read_bytes()
        self._counter.add(len(content))
        return content

    def header(self, name: str) -> Header:
        if path := self._here(name):
            return read_header(path, self._counter)
        if path := self._kept.find(name, "header-*"):
            content = bytearray(path.stat().st_size)
            with self._kept.reading(path) as kept:
                kept.read_into(memoryview(content))
            return Header(bytes(content), int(path.name.partition(".")[0].partition("-")[2]))
        first = bytearray(8)
        try:
            with self._ask(name, 0, 8) as answer:
                answer.read_into(memoryview(first))
                size = answer.size
        except NoRanges:
            return read_header(self._fetch_whole(name), self._counter)
        header = bytearray(header_length(first, size, f"{name} of {self.name} on the hub"))
        with (
            self._ask(name, 8, 8 + len(header)) as answer,
            self._keeping(name, f"header-{size}", answer, self._keep) as stream,
        ):
            stream.read_into(memoryview(header))
        return Header(bytes(header), size)

    @contextlib.contextmanager
    def stream(self, name: str, start: int, stop: int, keep: bool) -> Iterator[Stream]:
        part = f"{start}-{stop}"
        with contextlib.ExitStack() as stack:
            if path := self._here(name):
                stream: Stream = stack.enter_context(open_at(path, start, self._counter))
            elif path := self._kept.find(name, part):
                stream = stack.enter_context(self._kept.reading(path))
            else:
                try:
                    answer = stack.enter_context(self._ask(name, start, stop))
                    keeping = self._keeping(name, part, answer, keep and self._keep)
                    stream = stack.enter_context(keeping)
                except NoRanges:
                    whole = open_at(self._fetch_whole(name), start, self._counter)
                    stream = stack.enter_context(whole)
            yield stream

    def _ask(self, name: str, start: int, stop: int) -> contextlib.closing[Answer]:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(self.name, name, revision=self.revision)
        file = File(self.name, name, url, build_hf_headers(token=_token()))
        return contextlib.closing(Answer(file, start, stop, self._counter))

    def _keeping(
        self, name: str, part: str, answer: Answer, keep: bool
    ) -> contextlib.AbstractContextManager[Stream]:
        return self._kept.writing(name, part, answer) if keep else contextlib.nullcontext(answer)

    def _here(self, name: str) -> Path | None:
        """Return a weight file that the hub's cache has whole."""
        path = self.folder / name
        return path if path.is_file() else None

    def _fetch_whole(self, name: str) -> Path:
        """Return a weight file, fetched whole into the hub's cache."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        note = Note.of("fetched_whole", file=name, model=self.name)
        logger.warning("%s", note)
        self.notes.append(note)
        try:
            path = Path(hf_hub_download(self.name, name, revision=self.revision, token=_token()))
        except HTTPError as error:
            raise ModelError(said_of(self.name, self.revision, error)) from error
        except OSError as error:
            raise _trouble(error, self.name) from error
        self._counter.add(path.stat().st_size)
        return path

    def _open(self, revision: str | None) -> tuple[Path, str]:
        """Return the folder of the hub's cache with config.json, and which file is the index."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

        try:
            info = HfApi(token=_token()).model_info(self.name, revision=revision, timeout=TIMEOUT)
            index = find_index(self.name, [file.rfilename for file in info.siblings or ()])
            return self._small(index, revision, online=True), index
        except (HTTPError, OfflineModeIsEnabled) as error:
            reason = said_of(self.name, revision, error)
            if (folder := self._cached(revision)) is None:
                raise ModelError(reason) from error
            note = Note.of("from_the_cache", model=self.name, revision=folder.name, reason=reason)
            self.notes.append(note)
            return folder, INDEX if (folder / INDEX).is_file() else SINGLE
        except OSError as error:
            raise _trouble(error, self.name) from error

    def _small(self, index: str, revision: str | None, online: bool) -> Path:
        """Fetch config.json and the index; by name, so that the cache learns the name's commit."""
        from huggingface_hub import hf_hub_download

        paths = [
            hf_hub_download(
                self.name, name, revision=revision, token=_token(), local_files_only=not online
            )
            for name in ("config.json", *([INDEX] if index == INDEX else []))
        ]
        return Path(paths[0]).parent

    def _cached(self, revision: str | None) -> Path | None:
        from huggingface_hub.errors import LocalEntryNotFoundError

        for index in (INDEX, SINGLE):
            with contextlib.suppress(LocalEntryNotFoundError):
                return self._small(index, revision, online=False)
        return None


def _token() -> str | bool:
    """Return the token of the environment, never one that is stored on this machine."""
    return os.environ.get("HF_TOKEN") or False


def _trouble(error: OSError, hub_id: str) -> DiskError | ModelError:
    if advice := files.trouble(error):
        return DiskError(
            f"{hub_id} cannot be kept: {error}. {advice}, or set HF_HOME to another disk."
        )
    return ModelError(f"{hub_id} was fetched only in part: {redact(str(error))}")
