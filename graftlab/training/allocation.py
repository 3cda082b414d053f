"""Memory that is neither given back between steps nor searched while libraries and models are loaded.

glibc returns what a step frees to the kernel, which hands it out to the next anew, page by page and zeroed: a
tenth of a step's time here. Values do not change, and the peak hardly does.
"""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_* of glibc's malloc.h
KEPT, LARGEST = 2**31 - 1, 2**28  # bytes: give back never; map by itself only what is larger
AFTER_TRIM, AFTER_MMAP = 2**26, 2**25  # where glibc's own adjusting ends with tensors of this size
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Variables by which a user has chosen an allocator or its settings, which then stay."""


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep freed memory inside, and give it back at the end; only with glibc, and as nobody has set it."""
    libc = glibc()
    if libc is None or any(name in os.environ for name in SETTINGS):
        yield
        return
    libc.mallopt(TRIM_THRESHOLD, KEPT)
    libc.mallopt(MMAP_THRESHOLD, LARGEST)
    try:
        yield
    finally:
        libc.mallopt(TRIM_THRESHOLD, AFTER_TRIM)
        libc.mallopt(MMAP_THRESHOLD, AFTER_MMAP)
        libc.malloc_trim(0)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage inside: nearly all that an import or a model's loading makes is there to stay.

    Python would go through all of it again and again, which takes a tenth of a run's start.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # else they are somebody's, and to stay frozen
                gc.freeze()
                gc.unfreeze()  # what is there now counts as old, without a look through it
            gc.enable()


def glibc() -> Any:
    """Return the C library where it is glibc, else None."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # a static interpreter; Windows
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
