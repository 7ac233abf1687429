"""The thread that sends what runs log, so that no training waits for the tracking store."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from pti_pipeline.tracking.outbox import Outbox
from pti_pipeline.tracking.sending import deliver

BEAT = 60.0
"""Seconds between two signs of life of a run."""
LONGEST = 30.0
"""Seconds between two attempts at a store that has not answered for long."""
PATIENCE = 60.0
"""Seconds that the end of a run waits for a store that does not answer."""
HEARTBEAT = "pti.heartbeat"
TROUBLE = (MlflowException, OSError)


@dataclass(eq=False)
class Post:
    """A run's outbox, the store it goes to, and how far its sending is.

    Who holds ``lock`` closes the outbox, once ``closing`` is set.
    """

    box: Outbox
    client: MlflowClient
    beat: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: bool = False


class Sender:
    """One thread for all of a process's runs; it is there as long as one of them is open."""

    def __init__(self) -> None:
        self._posts: list[Post] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._news, self._down, self._gave_up = 0, False, False

    def open(self, box: Outbox, client: MlflowClient) -> Post:
        """Begin to send what is put into an outbox."""
        post = Post(box, client)
        with self._changed:
            self._posts.append(post)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="pti-sender", daemon=True)
                self._thread.start()
        return post

    def notify(self) -> None:
        """Say that there is something to be sent."""
        with self._changed:
            self._news += 1
            self._changed.notify_all()

    def drain(self, post: Post, seconds: float) -> bool:
        """Wait until all was sent, at most some seconds; return whether it was."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while waiting := next(post.box.waiting(), None) is not None:
                left = deadline - time.monotonic()
                if left <= 0 or (self._gave_up and self._down):
                    break
                self._changed.wait(min(left, 0.5))
            self._gave_up = waiting and seconds >= PATIENCE
        return not waiting

    def close(self, post: Post) -> None:
        """Send no more of an outbox; the last one's end is the thread's."""
        with self._changed:
            self._posts.remove(post)
            self._changed.notify_all()
        post.closing = True
        if post.lock.acquire(timeout=1):  # else the thread is in a call, and closes it thereafter
            post.box.close()
            post.lock.release()

    def _work(self) -> None:
        seen, pause = -1, 0.0
        while True:
            with self._changed:
                if not self._posts:
                    self._thread, self._down, self._gave_up = None, False, False
                    return
                if pause:
                    self._changed.wait_for(lambda: not self._posts, pause)
                elif seen == self._news:
                    self._changed.wait(BEAT / 4)
                seen, posts = self._news, list(self._posts)
            try:
                for post in posts:
                    self._serve(post)
                self._told(down=False)
                pause = 0.0
            except TROUBLE as error:
                self._told(down=True, error=error)
                pause = min(2 * pause or 1.0, LONGEST)
            with self._changed:
                self._changed.notify_all()

    def _serve(self, post: Post) -> None:
        with post.lock:
            try:
                deliver(post.client, post.box)
            finally:
                if post.closing:
                    post.box.close()
        now = time.monotonic()
        if now - post.beat >= BEAT:
            beat = RunTag(HEARTBEAT, str(int(time.time())))
            post.client.log_batch(post.box.run_id, tags=[beat])
            post.beat = now

    def _told(self, down: bool, error: BaseException | None = None) -> None:
        if down and not self._down:
            what = str(error).splitlines()[0][:120]
            print(f"The tracking store does not answer, training goes on ({what})", file=sys.stderr)
        elif self._down and not down:
            print("The tracking store answers again: nothing was lost", file=sys.stderr)
        self._down = down


_senders: dict[int, Sender] = {}


def sender() -> Sender:
    """Return this process's sender; a fork of a process that has one has its own."""
    return _senders.setdefault(os.getpid(), Sender())
