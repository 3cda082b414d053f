"""Runs as tasks of a Ray cluster that is there already; queue, placement and retries are Ray's own.

A node that is lost takes its tasks with it. Ray starts them again elsewhere, and each goes on with its run
from the last checkpoint: run directories lie on a path that all nodes see.
"""

import atexit
import functools
import logging
import os
import platform
import signal
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab import config, runfile
from graftlab.config import Document
from graftlab.data import foreign_code
from graftlab.errors import NOWHERE, OUT, Argument, ConfigError, GraftlabError, Place, missing_extra
from graftlab.rundir import files, manifest, provenance
from graftlab.rundir.run import Run
from graftlab.runs import material
from graftlab.workers import child
from graftlab.workers.child import Ended, Orders, Stop, Watch, unwatched
from graftlab.workers.claims import Claims
from graftlab.workers.presence import Presence
from graftlab.workers.slots import Slot

if TYPE_CHECKING:
    from graftlab.workers.crew import Crew

log = logging.getLogger("graftlab")
OLDEST = (2, 50)
"""The first version of Ray that is known to do."""
RETRIES = 3
"""So often Ray starts a task again whose node or process was lost."""
REACH_S = 10.0
MOST = 256
"""Tasks that wait in Ray's queue at most: each has a thread here."""
WORKERS = "workers"


class Head(NamedTuple):
    """What a node must share with the head, and how it is to work."""

    mark: str
    made_with: dict[str, Any]
    """Versions, and a hash of graftlab's code."""
    cwd: str
    out: str
    beat_s: float


class Job(NamedTuple):
    """One run for a node."""

    folder: str
    document: Document | None
    orders: Orders
    head: Head
    mark: str

    @property
    def given_up(self) -> Path:
        """The file by which the head says that the run is another's: it ends without a further byte."""
        return Path(self.head.out) / WORKERS / f"given-up-{self.mark}"


class Cluster:
    """The Ray cluster that RAY_ADDRESS names, or that this machine is part of."""

    alone = False

    def __init__(self, crew: "Crew", out: Path, wanted: int | None) -> None:
        self._ray = _ray()
        self._needs = {"CPU": 1.0, **crew.needs}
        connect(self._ray)
        head = Head(
            uuid.uuid4().hex, made_with(), str(Path.cwd()), str(out.absolute()), crew.beat_s
        )
        mark(head)
        self._head, self._reading = head, threading.Lock()
        self._prints: dict[str, object] = {}
        many = crew.workers or min(wanted or self._room(), MOST)
        threads = max(1, int(self._needs["CPU"]))
        self.slots: Sequence[Slot] = [Slot(number, threads) for number in range(many)]
        self._task = self._ray.remote(
            max_retries=RETRIES, num_cpus=self._needs["CPU"], num_gpus=self._needs.get("GPU", 0),
            resources={k: v for k, v in self._needs.items() if k not in ("CPU", "GPU")},
        )(task)  # fmt: skip

    def _room(self) -> int:
        """Return how many runs the cluster has room for as it is, 1 at least."""
        there = self._ray.cluster_resources()
        room = min(int(there.get(name, 0) / need) for name, need in self._needs.items() if need)
        if room < 1:
            log.warning(
                "the cluster has no room yet for one run (%s); its runs wait",
                ", ".join(f"{name}={need:g}" for name, need in self._needs.items()),
            )
        return max(1, room)

    def carry_out(
        self, folder: Path, document: Document | None, orders: Orders, stop: Stop,
        watch: Watch = unwatched,
    ) -> Ended:  # fmt: skip
        """Run it as a task, wherever Ray has room; a run whose node is lost goes on elsewhere."""
        try:
            orders = orders._replace(data=self._fingerprint(document, orders.allow_code))
        except GraftlabError as error:
            return Ended(f"{type(error).__name__}: {error}")
        job = Job(str(folder.absolute()), document, orders, self._head, uuid.uuid4().hex)
        waited_for = self._task.options(name=folder.name).remote(job)
        left = cancelled = False
        while not self._ray.wait([waited_for], timeout=child.WATCH_EVERY_S)[0]:
            wanted = stop.received or watch()
            if wanted == signal.SIGKILL and not left:  # cancelled, the run would save
                left = True
                files.write_text(job.given_up, "")
            elif wanted not in (None, signal.SIGKILL) and not cancelled:
                cancelled = True
                self._ray.cancel(waited_for)  # the task has its run save
        job.given_up.unlink(missing_ok=True)
        try:
            ended: Ended = self._ray.get(waited_for)
            return ended
        except self._ray.exceptions.TaskCancelledError:
            return Ended("it was stopped")
        except self._ray.exceptions.RayError as error:
            return Ended(f"Ray gave it up: {type(error).__name__}: {str(error).strip()}")

    def _fingerprint(self, document: Document | None, allow_code: bool) -> Any:
        """Return that of a new run's rows as they are here; each data set is read once."""
        if document is None:
            return None  # what it began with stands in its folder
        file = runfile.resolve(document)
        of = config.dump({"task": file.resolved["task"], "seed": file.seed})
        with self._reading, foreign_code.allowed(allow_code):
            if of not in self._prints:
                self._prints[of] = material.read(file).record.get("fingerprint")
            return self._prints[of]


def _ray() -> ModuleType:
    """Return Ray. `Raises:` ConfigError: it is missing or too old."""
    try:
        import ray
    except ImportError:
        place = Place(argument=Argument("on", "ray"))
        said = missing_extra("a Ray cluster", "ray", "ray")
        raise ConfigError(said, place=place, kind="not_installed") from None
    check_version(ray.__version__)
    return ray


def check_version(version: str) -> None:
    """Refuse a Ray that is too old. `Raises:` ConfigError."""
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ConfigError(
            f"ray {version} is too old: {oldest} or newer is wanted, here and on all nodes.",
            kind="too_old", given=version, allowed=[f">={oldest}"],
        )  # fmt: skip


def connect(ray: ModuleType) -> None:
    """Join the cluster that is there; none is started.

    Raises:
        ConfigError: there is none, or it is of another version.
    """
    if ray.is_initialized():
        return
    place = Place(argument=Argument("on", "ray"))
    reach(os.environ.get("RAY_ADDRESS"), place)
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise _nowhere(os.environ.get("RAY_ADDRESS"), place) from None
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"the Ray cluster does not take this process: {said}", place=place, kind="other_cluster"
        ) from None


def reach(address: str | None, place: Place = NOWHERE) -> None:
    """Refuse an address where nobody answers: Ray itself tries for minutes. `Raises:` ConfigError."""
    if address in (None, "", "auto", "local"):
        return
    if "://" in str(address):
        raise ConfigError(
            f"RAY_ADDRESS {address} is that of Ray's client. Give HOST:PORT of the cluster's head, on a "
            f"machine of the cluster.",
            place=place, kind="no_cluster", given=address,
        )  # fmt: skip
    host, _, port = str(address).rpartition(":")
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except (OSError, ValueError):
        raise _nowhere(address, place) from None


def _nowhere(address: str | None, place: Place) -> ConfigError:
    at = f"at RAY_ADDRESS {address}" if address else "on this machine, and RAY_ADDRESS is not set"
    said = f"there is no Ray cluster {at}. Start one with `ray start --head`, or name it."
    return ConfigError(said, place=place, kind="no_cluster", given=address)


@functools.cache
def made_with() -> dict[str, Any]:
    """Return what all nodes must share: versions, and a hash of graftlab's own code."""
    package = Path(__file__).parents[1]
    code = {str(p.relative_to(package)): files.sha256(p) for p in sorted(package.rglob("*.py"))}
    return {
        "python": platform.python_version(),
        "packages": dict(provenance.packages()),
        "code": manifest.seal(code),
    }


def task(job: Job) -> Ended:
    """Carry out a run on the node where this is called."""
    try:
        check(job.head)
        return _carry_out(job)
    except GraftlabError as error:
        return Ended(f"{type(error).__name__}: on the node {platform.node()}: {error}")


def mark(head: Head) -> None:
    """Leave the file by which a node knows that it sees the head's folder; each head has its own."""
    _mark(head).parent.mkdir(parents=True, exist_ok=True)
    files.write_text(_mark(head), "")
    atexit.register(_mark(head).unlink, missing_ok=True)


def _mark(head: Head) -> Path:
    return Path(head.out) / WORKERS / f"head-{head.mark}"


def check(head: Head) -> None:
    """Refuse a node that is not as the head. `Raises:` ConfigError."""
    differ = provenance.differences(head.made_with, made_with())
    if differ:
        raise ConfigError(
            f"it has other code than the head: {', '.join(map(str, differ))}. Install the same there.",
            kind="other_code", given=[str(one) for one in differ],
        )  # fmt: skip
    if not _mark(head).is_file():
        raise ConfigError(
            f"{head.out} is not the head's folder there.",
            ("Give ", OUT, " a path that all nodes see."), kind="not_shared", given=head.out,
        )  # fmt: skip
    if not Path(head.cwd).is_dir():
        raise ConfigError(
            f"the head's working directory {head.cwd} is not there: start where all nodes have it.",
            kind="not_shared", given=head.cwd,
        )  # fmt: skip


def _carry_out(job: Job) -> Ended:
    head, run, stop = job.head, Run(Path(job.folder)), Stop()
    os.chdir(head.cwd)  # which paths of a run file are relative to
    child.preload()
    presence = Presence(Path(head.out) / WORKERS, head.beat_s)
    with presence.at_work(), stop.caught():
        claims = Claims(Path(head.out) / "claims", presence)
        while (
            claim := claims.take(run.path.name)
        ) is None:  # until the lost node's is known for dead
            if stop.received is not None:
                return Ended("it was stopped")
            time.sleep(1.0)
        if run.finished:
            return Ended(None)
        if job.given_up.exists():
            return Ended("it was left to another process")
        lost = claims.ends(claim)
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        orders = job.orders._replace(slot=job.orders.slot._replace(gpus=seen))
        document = None if run.started else job.document
        ended = child.carry_out(
            run.path, document, orders, stop,
            lambda: signal.SIGKILL if job.given_up.exists() else lost(),
        )  # fmt: skip
        claims.release(claim)
        return ended
