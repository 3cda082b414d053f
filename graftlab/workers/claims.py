"""Runs shared out among processes, also of several machines: each is claimed by one, and anew if that dies.

A claim is a symbolic link to the process that has it, because a link is made whole or not at all on every
file system. Claims of a run are numbered, and none is taken away: who finds the last one over, or its process
dead, makes the next.
"""

import contextlib
import hashlib
import signal
from pathlib import Path
from typing import NamedTuple

from graftlab.rundir import files
from graftlab.workers.child import Watch
from graftlab.workers.presence import Presence


class Claim(NamedTuple):
    """A run that this process carries out."""

    key: str
    number: int


class Claims:
    """The claims of a directory, as one process sees them."""

    def __init__(self, folder: Path, presence: Presence) -> None:
        self._folder, self._presence = folder, presence
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, what: str) -> Claim | None:
        """Return a claim on `what`; None where a living process has one."""
        key = hashlib.sha256(what.encode()).hexdigest()[:16]
        number = max(self._numbers(key), default=-1)
        if number >= 0 and self._alive(Claim(key, number)):
            return None
        claim = Claim(key, number + 1)
        try:
            self._link(claim).symlink_to(
                Path("..") / self._presence.folder.name / self._presence.name
            )
        except FileExistsError:
            return None
        return claim

    def lost(self, claim: Claim) -> bool:
        """Say whether another process has taken this one for dead and gone on with its run."""
        return self._link(Claim(claim.key, claim.number + 1)).is_symlink()

    def ends(self, claim: Claim) -> Watch:
        """Return what ends a run at once, without saving, as soon as its claim is lost."""
        return lambda: signal.SIGKILL if self.lost(claim) else None

    def release(self, claim: Claim, cause: str | None = None) -> None:
        """Give a claim up; `cause` is why its run failed, for those that would try it again at once."""
        if cause is not None:
            files.write_json(self._folder / f"{claim.key}.failed", {"cause": cause})
        self._over(claim).touch()

    def failed(self, what: str) -> str | None:
        """Return why a run has failed since this process began, under another; None where it has not."""
        path = self._folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.failed"
        with contextlib.suppress(OSError, ValueError):
            if path.stat().st_mtime >= self._presence.began:
                return str(files.read_json(path)["cause"])
        return None

    def _link(self, claim: Claim) -> Path:
        return self._folder / f"{claim.key}.{claim.number}"

    def _over(self, claim: Claim) -> Path:
        return self._folder / f"{claim.key}.{claim.number}.over"

    def _numbers(self, key: str) -> list[int]:
        names = (path.suffix[1:] for path in self._folder.glob(f"{key}.*"))
        return [int(name) for name in names if name.isdigit()]

    def _alive(self, claim: Claim) -> bool:
        if self._over(claim).exists():
            return False
        try:
            return self._presence.alive(self._link(claim).readlink().name)
        except FileNotFoundError:  # not seen here yet, as it is seen in the folder's list
            return True
