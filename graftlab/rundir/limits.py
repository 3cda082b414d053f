"""What the system's limits refuse - memory, open files, threads - told from bugs, with what to do."""

import errno
import re
from collections.abc import Iterator

from graftlab.errors import DiskError, GraftlabError, OutOfMemory, Words

MEMORY = re.compile(
    r"(?:can(?:not|'t) allocate|not enough|out of) memory|bad_alloc|failed to map segment",
    re.IGNORECASE,
)
THREADS = re.compile(r"can't start new thread|[Rr]esource temporarily unavailable")
FILES = re.compile(r"[Tt]oo many open files")
REMEDIES: dict[type[GraftlabError], dict[str, tuple[re.Pattern[str], tuple[int, ...], Words]]] = {
    OutOfMemory: {
        "memory": (
            MEMORY,
            (errno.ENOMEM,),
            (
                "Raise the limit (`ulimit -v`, a job's memory), or take a smaller backbone or batch.",
            ),
        ),
        "threads": (
            THREADS,
            (errno.EAGAIN,),
            (
                "Raise the limit (`ulimit -u`), or ask for fewer: training.workers: 0, OMP_NUM_THREADS=1.",
            ),
        ),
    },
    DiskError: {
        "open_files": (
            FILES,
            (errno.EMFILE, errno.ENFILE),
            ("Raise the limit (`ulimit -n 4096`), or set training.workers: 0.",),
        )
    },
}
SAID = {
    "memory": "this process may not have more memory",
    "threads": "this process may not start more threads or processes",
    "open_files": "this process may not open more files",
}


def exceeded(error: BaseException | None) -> GraftlabError | None:
    """Return the error to raise where a limit of the system is behind `error`, else None."""
    for one in _chain(error):
        for kind, of_kind in REMEDIES.items():
            for what, (words, numbers, remedy) in of_kind.items():
                given = what == "memory" and isinstance(one, MemoryError)
                numbered = isinstance(one, OSError) and one.errno in numbers
                if given or numbered or (_may_say_so(one) and words.search(str(one))):
                    first = str(one).strip().partition("\n")[0]
                    return kind(f"{SAID[what]}{f' ({first})' if first else ''}.", remedy, kind=what)
    return None


def _may_say_so(error: BaseException) -> bool:
    """Return whether an error's words may be a library's: ours quote data."""
    return isinstance(error, RuntimeError | OSError | ImportError | SystemError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__  # also where it is not shown
