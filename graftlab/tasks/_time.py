"""Code of others that may not end: given a time, and left where it takes longer."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class TookTooLong(Exception):
    """The time is over."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TookTooLong` inside once this process has computed for so long.

    In the main thread, whose signals tell of the processor's time; in another thread, of the clock's.
    """
    if threading.current_thread() is not threading.main_thread():
        with _watched(seconds):
            yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TookTooLong

    former = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


@contextlib.contextmanager
def _watched(seconds: float) -> Iterator[None]:
    import ctypes

    mine = ctypes.c_ulong(threading.get_ident())
    stop = ctypes.py_object(TookTooLong)
    watch = threading.Timer(seconds, lambda: ctypes.pythonapi.PyThreadState_SetAsyncExc(mine, stop))
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
