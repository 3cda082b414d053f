"""How many threads numpy and scipy multiply with: on small matrices two wait longer than they work."""

import contextlib
import functools
from contextlib import AbstractContextManager
from typing import Any, cast

SMALL = 1536
"""Rows and columns below which one thread is quicker: on two cores it reduces 576 in 0.018 s and 1,024 in
0.11, two in 0.031 and 0.16; 2,048 take 0.84 and 0.56."""


def one() -> AbstractContextManager[object]:
    """Return the context in which they have one thread. torch has its own."""
    return cast("AbstractContextManager[object]", _libraries().limit(limits=1))


@functools.cache
def _libraries() -> Any:
    """Return what multiplies for numpy and scipy: looked for once, among all that is loaded."""
    import scipy.linalg  # noqa: F401  (its library has to be there already)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(prefix="libscipy_openblas")


def fit_for(size: int) -> AbstractContextManager[object]:
    """Return the context in which they have as many threads as a matrix of so many rows and columns wants."""
    return one() if size < SMALL else contextlib.nullcontext()
