"""When a run is kept: checkpoints that cost little, and an orderly way out for a process that is told to go."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from keras_transfer.errors import explain
from keras_transfer.training.checkpoints import KEPT, Checkpoints
from keras_transfer.training.snapshot import Snapshot

# The next checkpoint comes no sooner than after so many times the seconds that the last one took, and a copy in memory
# no sooner than after so many times what the last one took: 1.4 and 0.4 %, which leaves room for the one at the end.
WRITING_PATIENCE, HOLDING_PATIENCE = 70, 250
# What the first one is taken to cost, before any has been measured: a slow disk.
ASSUMED_BYTES_PER_SECOND = 100e6


class Keeper:
    """Keeps a run's snapshots: on disk when it is time, in memory in between.

    Args:
        checkpoints: where they go; `None` keeps nothing.
        seconds: at least so long from one checkpoint to the next, and longer where they would take more than 2 %.
        steps: a checkpoint every so many steps instead, whatever it costs.
        expected_bytes: about how large the first one will be.
        say: is called with what a user should read.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        *,
        seconds: float = 30.0,
        steps: int | None = None,
        expected_bytes: int = 0,
        say: Callable[[str], None] = print,
    ):
        self._checkpoints, self._seconds, self._steps, self._say = checkpoints, seconds, steps, say
        self._cost = expected_bytes / ASSUMED_BYTES_PER_SECOND
        self._taking = 0.0
        self._written_at = self._taken_at = time.monotonic()
        self._steps_since = 0
        self._held: Snapshot | None = None
        self._asked: int | None = None
        self._can_wait = self._is_writing = False
        self._has_written = False
        self.seconds_spent = 0.0

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._checkpoints is not None

    def last(self) -> Snapshot | None:
        """What an earlier process kept last."""
        found = self._checkpoints.read_last() if self.keeps else None
        self._has_written = found is not None
        return None if found is None else Snapshot.from_dict(found)

    def count_step(self) -> None:
        """One more step has been done since the last checkpoint."""
        self._steps_since += 1

    def keep_if_due(self, take: Callable[[], Snapshot]) -> None:
        """Writes a checkpoint where it is time for one.

        Args:
            take: gives the snapshot; called only then.
        """
        if self.keeps and self._is_due():
            self.write(take)

    def hold_if_cheap(self, take: Callable[[], Snapshot]) -> None:
        """Holds a snapshot in memory, for a signal that comes before the next; not so often that it would cost."""
        if self.keeps and time.monotonic() - self._taken_at >= HOLDING_PATIENCE * self._taking:
            with self._undisturbed():
                self._held = self._take(take)

    def keep_at_rest(self, take: Callable[[], Snapshot]) -> None:
        """Keeps a snapshot between two stages: on disk where it is time, otherwise in memory for a signal."""
        self._can_wait = False
        if self.keeps:
            self._held = take()
            self.keep_if_due(lambda held=self._held: held)

    def write(self, take: Callable[[], Snapshot], *, kept: int = KEPT) -> None:
        """Writes a checkpoint now, where anything is kept.

        Raises:
            OSError: where the disk is full; the last checkpoint is then still there.
        """
        if not self.keeps:
            return
        with self._undisturbed():
            started = time.monotonic()
            self._checkpoints.write(self._take(take).to_dict(), kept=kept)
            self._held, self._has_written = None, True
            self._written_at = time.monotonic()
            self._cost = self._written_at - started
            self.seconds_spent += self._cost
            self._steps_since = 0

    def _take(self, take: Callable[[], Snapshot]) -> Snapshot:
        started = time.monotonic()
        found = take()
        self._taken_at = time.monotonic()
        self._taking = self._taken_at - started
        return found

    def _is_due(self) -> bool:
        if self._steps is not None:
            return self._steps_since >= self._steps
        return time.monotonic() - self._written_at >= max(self._seconds, WRITING_PATIENCE * self._cost)

    # --- being told to go -------------------------------------------------------------------------------------------

    @property
    def is_to_leave(self) -> bool:
        """Whether a signal has come that waits for the end of a step."""
        return self._asked is not None

    def steps_are_running(self, running: bool) -> None:
        """Says whether the end of a step is near: then a signal waits for it, and else acts at once."""
        self._can_wait = running
        if not running and self.is_to_leave:
            self.leave()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within this, SIGTERM and Ctrl-C leave a checkpoint behind before they end the process or the call.

        Only in the main thread, which alone gets signals, and where they are not ignored.
        """
        if not self.keeps or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        if before[signal.SIGTERM] in (signal.SIG_IGN, None):
            del before[signal.SIGTERM]
        if before[signal.SIGINT] is not signal.default_int_handler:
            del before[signal.SIGINT]
        for number in before:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        is_second = self._asked is not None
        self._asked = number
        # One that comes twice is meant; a checkpoint that is being written is finished all the same.
        if not self._can_wait or (is_second and not self._is_writing):
            self.leave()

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        waits, self._can_wait, self._is_writing = self._can_wait, True, True
        try:
            yield
        finally:
            self._can_wait, self._is_writing = waits, False
        if self.is_to_leave and not waits:
            self.leave()

    def leave(self, take: Callable[[], Snapshot] | None = None) -> None:
        """Writes what is newer than the last checkpoint, says where the run can go on, and goes.

        Args:
            take: gives a snapshot of this moment; without it the one held in memory counts.

        Raises:
            SystemExit: with status 143, where SIGTERM came.
            KeyboardInterrupt: where Ctrl-C came.
        """
        number, self._asked = self._asked, None
        newest = take or ((lambda held=self._held: held) if self._held is not None else None)
        if newest is not None:
            self.write(newest)
        folder = self._checkpoints.folder.parent
        self._say(
            explain(
                f"Told to stop ({signal.Signals(number).name}).",
                kept=f"{folder}, up to the last checkpoint" if self._has_written else "nothing: there was nothing yet",
                to_go_on="start the same line again",
            )
        )
        sys.stdout.flush()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
