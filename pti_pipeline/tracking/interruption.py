"""Signals that end a step, taken so that none of its runs is left open."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Handler of stopping signals: raises where that is safe, once.

    Attributes
    ----------
    obeyed : bool
        Whether a run has seen it and is being ended; later signals then change nothing. One that
        comes while a destructor runs is lost with it: whoever sends signals sends them again.
    """

    def __init__(self) -> None:
        self.obeyed = False
        self._held, self._came = 0, 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise ``KeyboardInterrupt`` or ``SystemExit(143)``, at once or when no longer held."""
        if self.obeyed and number == signal.SIGTERM:
            return
        self._came = number
        if not self._held:
            self._raise()

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Let signals wait while this lasts, or until the function that it gives is called."""
        self._held += 1
        waiting = True

        def release() -> None:
            nonlocal waiting
            self._held -= waiting
            waiting = False
            if self._came and not self._held:
                self._raise()

        try:
            yield release
        finally:
            release()

    def _raise(self) -> None:
        number, self._came = self._came, 0
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Take stopping signals while this lasts: the outermost one's handler serves those inside.

    Only the main thread can; elsewhere, and where signals are ignored, nothing changes.
    """
    there = signal.getsignal(signal.SIGTERM)
    if isinstance(there, Interruption) or threading.current_thread() is not threading.main_thread():
        yield there if isinstance(there, Interruption) else Interruption()
        return
    handler = Interruption()
    before = {n: signal.getsignal(n) for n in STOPPING if signal.getsignal(n) != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield handler
    finally:
        for number, other in before.items():
            signal.signal(number, other)
