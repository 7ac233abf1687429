"""The thread that sends what runs log, so that no training waits for the tracking store."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from pti_pipeline.tracking.life import heartbeat
from pti_pipeline.tracking.outbox import Outbox
from pti_pipeline.tracking.sending import deliver
from pti_pipeline.tracking.store import FINAL

BEAT = 60.0
"""Seconds between two signs of life of a run."""
LONGEST = 30.0
"""Seconds between two attempts at a store that has not answered for long."""
PATIENCE = 60.0
"""Seconds that the end of a run waits for a store that does not answer."""


@dataclass(eq=False)
class Post:
    """A run's outbox, and the store it goes to.

    Who has ``lock`` may use the outbox, as long as that is open; it closes it once ``closing``.
    """

    box: Outbox
    client: MlflowClient
    beat: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: bool = False


class Sender:
    """One thread for all of a process's runs; it is there as long as one of them is open.

    What a training calls takes no lock that an interruption could leave taken.
    """

    def __init__(self) -> None:
        self._posts: list[Post] = []
        self._guard, self._news = threading.Lock(), SimpleQueue[None]()
        self._thread: threading.Thread | None = None
        self._down, self._gave_up = False, False

    def open(self, box: Outbox, client: MlflowClient) -> Post:
        """Begin to send what is put into an outbox. Not to be interrupted."""
        post = Post(box, client)
        with self._guard:
            self._posts.append(post)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="pti-sender", daemon=True)
                self._thread.start()
        return post

    def notify(self) -> None:
        """Say that there is something to be sent."""
        self._news.put(None)

    def drain(self, post: Post, seconds: float) -> bool:
        """Wait until all was sent, at most some seconds; return whether it was."""
        deadline = time.monotonic() + seconds
        while (waiting := next(post.box.waiting(), None)) is not None:
            if time.monotonic() > deadline or self._gave_up:
                break
            time.sleep(0.02)
        return waiting is None

    def give_up(self) -> None:
        """Wait for the store no more, for any run, until it answers again."""
        self._gave_up = True

    def close(self, post: Post) -> None:
        """Send no more of an outbox; the last one's end is the thread's. Not to be interrupted."""
        with self._guard:
            self._posts.remove(post)
        post.closing = True
        if post.lock.acquire(timeout=1):  # else the thread is in a call, and closes it thereafter
            try:
                post.box.close()
            finally:
                post.lock.release()
        self.notify()

    def _work(self) -> None:
        pause = 0.0
        while True:
            with self._guard:
                posts = list(self._posts)
                if not posts:
                    self._thread, self._down, self._gave_up = None, False, False
                    return
            trouble = [error for post in posts if (error := self._served(post))]
            self._tell(trouble)
            pause = min(2 * pause or 1.0, LONGEST) if trouble else 0.0
            self._rest(pause)

    def _rest(self, pause: float) -> None:
        """Wait until there is news; after trouble, whatever is new, for some time."""
        until = time.monotonic() + (pause or BEAT / 4)
        while (left := until - time.monotonic()) > 0 and self._posts:
            with suppress(Empty):
                self._news.get(timeout=min(left, 1.0))
                if not pause:
                    break
        while not self._news.empty():
            self._news.get()

    def _served(self, post: Post) -> Exception | None:
        """Send all of a run; return what kept from it: one run's trouble is not the others'."""
        with post.lock:
            if not post.box.open:
                return None
            try:
                self._beat(post)
                deliver(post.client, post.box)
            except Exception as error:  # of any kind: were the thread to die, all runs would wait
                return error
            finally:
                if post.closing:
                    post.box.close()
        return None

    def _beat(self, post: Post) -> None:
        now = time.monotonic()
        if now - post.beat < BEAT:
            return
        tags = [RunTag(*beat) for beat in heartbeat().items()]
        try:
            post.client.log_batch(post.box.run_id, tags=tags, synchronous=True)
        except MlflowException as error:
            if error.error_code not in FINAL:
                raise  # else it was deleted, and nobody looks for its life
        post.beat = now

    def _tell(self, trouble: Sequence[Exception]) -> None:
        if trouble and not self._down:
            what = str(trouble[0]).splitlines()[0][:120]
            print(f"The tracking store does not answer, training goes on ({what})", file=sys.stderr)
        elif self._down and not trouble:
            print("The tracking store answers again", file=sys.stderr)
            self._gave_up = False
        self._down = bool(trouble)


_senders: dict[int, Sender] = {}


def sender() -> Sender:
    """Return this process's sender; a fork of a process that has one has its own."""
    process = os.getpid()
    if process not in _senders:
        _senders[process] = Sender()
    return _senders[process]
