"""Signals that end a step, taken so that none of its runs is left open."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
STOPPING = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
"""Ctrl-C, a request to end, and a terminal that is gone."""


class Interruption:
    """Handler of stopping signals: raises where that is safe.

    Attributes
    ----------
    holds : int
        While it is above 0, signals wait. It is raised by hand, ``holds += 1``, as a call is where
        signals come in, and lowered by :meth:`lower`.
    obeyed : bool
        Whether a run has seen one and is being ended: then no further request to end changes
        anything. One that comes while a destructor runs is lost with it: whoever sends signals
        sends them again.
    """

    def __init__(self) -> None:
        self.holds, self.obeyed, self._came = 0, False, 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise ``KeyboardInterrupt`` or ``SystemExit(128 + number)``, now or when it is safe."""
        if self.obeyed and number != signal.SIGINT:
            return
        self._came = number
        if not self.holds:
            self._raise()

    def lower(self) -> None:
        """Hold signals once less; one that came is raised when nothing holds it any more."""
        self.holds -= 1
        if self._came and not self.holds:
            self._raise()

    def _raise(self) -> None:
        number, self._came = self._came, 0
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Take stopping signals while this lasts: the outermost one's handler serves those inside.

    Only the main thread can; elsewhere, and where signals are ignored, nothing changes. Signals
    are held at the beginning.
    """
    there = signal.getsignal(signal.SIGTERM)
    inside = isinstance(there, Interruption)
    handler = there if isinstance(there, Interruption) else Interruption()
    level, before = handler.holds, {}
    handler.holds += 1
    if not inside and threading.current_thread() is threading.main_thread():
        known = {number: signal.getsignal(number) for number in STOPPING}
        before = {n: other for n, other in known.items() if other not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield handler
    finally:
        handler.holds = level + 1  # whatever happened inside
        for number, other in before.items():
            signal.signal(number, other)
        handler.lower()
