"""The most memory that a stretch of work holds, where the system says what a process holds."""

import contextlib
import ctypes
import gc
import os
import pathlib
import threading
from collections.abc import Iterator

_STATM = pathlib.Path("/proc/self/statm")
_SECONDS_BETWEEN = 0.02


class Memory:
    """What this process held while the work went on.

    Attributes:
        at_first: bytes when it began.
        peak: the most bytes since; `None` where the system does not say.
    """

    def __init__(self) -> None:
        self.at_first = self.peak = resident()

    def look(self) -> None:
        """Takes note of what is held now."""
        now = resident()
        if now is not None and self.peak is not None:
            self.peak = max(self.peak, now)

    @property
    def added(self) -> int | None:
        """The most bytes that were held at once beyond those of the beginning."""
        return None if self.peak is None or self.at_first is None else self.peak - self.at_first


@contextlib.contextmanager
def watched() -> Iterator[Memory]:
    """Looks fifty times a second at what the process holds, from now to the end of the context.

    The system's own peak (`ru_maxrss`) only ever rises, so in a process that trains several models one after another it
    says nothing of any but the largest. What is read here is memory of the host, in use at that moment. Before it
    begins, what nobody refers to is collected and freed memory is handed back where the C library can do so, but what
    libraries keep for later use stays.

    Example:

    >>> with watched() as memory:
    ...     content = bytearray(50_000_000)
    ...     memory.look()
    >>> memory.added is None or memory.added > 40_000_000
    True
    """
    gc.collect()
    _hand_back()
    memory, ended = Memory(), threading.Event()

    def look_on() -> None:
        while not ended.wait(_SECONDS_BETWEEN):
            memory.look()

    watcher = threading.Thread(target=look_on, daemon=True)
    if memory.peak is not None:
        watcher.start()
    try:
        yield memory
    finally:
        ended.set()
        if watcher.is_alive():
            watcher.join()


def resident() -> int | None:
    """Bytes of memory that this process holds now, or `None` where there is no `/proc`."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _hand_back() -> None:
    """Gives freed memory back to the system: glibc keeps it otherwise, and the next run would seem to need less."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
