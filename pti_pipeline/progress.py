"""Progress bars that processes do not share."""

from __future__ import annotations

from threading import RLock

from tqdm import tqdm

__all__ = ["tqdm"]

# The usual lock is one with all forks of a process: were one killed while it writes its bar, none
# of the others could ever write again. And no thread may hold it while a process is forked.
tqdm.set_lock(RLock())
tqdm.monitor_interval = 0
