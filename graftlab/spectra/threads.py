"""How many threads numpy and scipy multiply with: on small matrices two wait longer than they work."""

import contextlib
from contextlib import AbstractContextManager
from typing import cast

SMALL = 1024
"""Rows and columns below which one thread is as quick as several; measured on two cores, where a spectrum of
384 by two took 1.6 times as long."""


def one() -> AbstractContextManager[object]:
    """Return the context in which they have one thread. torch has its own."""
    import scipy.linalg  # noqa: F401  (its library has to be there already)
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(prefix="libscipy_openblas")
    return cast("AbstractContextManager[object]", found.limit(limits=1))


def fit_for(size: int) -> AbstractContextManager[object]:
    """Return the context in which they have as many threads as a matrix of so many rows and columns wants."""
    return one() if size < SMALL else contextlib.nullcontext()
