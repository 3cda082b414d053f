"""Waiting beside a test for what it does, never without an end."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(found: Callable[[], Found], seconds: float = 300) -> Found:
    """Ask until the answer is true, and return it.

    Raises:
        TimeoutError: it was not, for so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{seconds} s have passed")
        time.sleep(0.01)
    return answer


def beside(work: Callable[[], object]) -> None:
    """Do it in a thread that does not outlive the tests."""
    threading.Thread(target=work, daemon=True).start()
