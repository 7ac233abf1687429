"""One MLflow run of one step: opened, written to, and always ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlflow
from filelock import Timeout
from mlflow import MlflowClient
from mlflow.entities import RunTag

from pti_pipeline.errors import LockedError, PtiError, ResourceError, StoreError, unexpected
from pti_pipeline.tracking.earlier import Earlier, Logged, revive
from pti_pipeline.tracking.interruption import Interruption, interruptible
from pti_pipeline.tracking.life import birth, user
from pti_pipeline.tracking.outbox import Outbox, outbox_root
from pti_pipeline.tracking.run import NOTHING, Run
from pti_pipeline.tracking.sender import PATIENCE, sender
from pti_pipeline.tracking.store import EXPERIMENT, answering, connect, experiment_id, store_uri

CONTINUES = "pti.continues"
"""Tag of a run that ``mlflow run`` made for a call that went on with another."""
GRACE = 5.0
"""Seconds of waiting for the store at a run's end in which a signal has to wait too."""


@contextmanager
def open_run(
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, object],
    own: bool = True,
    earlier: Earlier | None = None,
) -> Iterator[Run]:
    """Open a run for one step and end it whatever happens.

    Parameters
    ----------
    name : str
        Says what the run is, e.g. ``"invert lr=0.005 seed=0"``.
    params, tags : mapping
        Logged at the start; empty tags are left out.
    own : bool
        Continue the run that ``mlflow run`` made for this process, if there is one. A sweep's
        members don't: that run is the sweep's.
    earlier : Earlier, optional
        Write on this run, which was interrupted, rather than make one.

    Yields
    ------
    Run
        FINISHED at the end; FAILED after an exception, with its code and text as tags; KILLED
        after Ctrl-C or a termination signal.
    """
    trouble: list[StoreError] = []
    with opened(name, params, tags, own, earlier, trouble) as run:
        yield run
    for error in trouble:
        raise error


@contextmanager
def opened(
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, object],
    own: bool,
    earlier: Earlier | None,
    trouble: list[StoreError],
) -> Iterator[Run]:
    """Open a run as :func:`open_run` does; what the store has not taken is put into ``trouble``.

    It is for several runs that end together: the store's trouble is no error of the others.
    """
    # closed, not thrown into, is a run whose way in or out another signal has cut short
    status = "KILLED"
    with interruptible() as interruption:
        client = connect()  # not to be interrupted either: that leaves SQLite locked
        run_id = earlier.run.id if earlier else _take(client, name, tags, own)
        box = _outbox(client, run_id)
        logged = _go_on(client, box, earlier, tags, own) if earlier else NOTHING
        post = sender().open(box, client)
        run = Run(post, logged)
        try:
            interruption.lower()  # not before: a run that is not known here would stay open
            run.log_params(params)
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            interruption.obeyed = True
            raise
        except Exception as error:
            status = "FAILED"
            told = error if isinstance(error, PtiError) else unexpected(error, False)
            run.set_tags({"pti.error_code": told.code, "pti.error": str(error)[:4000]})
            raise
        finally:
            interruption.holds += 1
            done = False
            try:
                run.end(status)
                done = run.wait(GRACE) or _waited(run, interruption)
            except ResourceError:  # the journal can't take it; the store may
                client.set_terminated(run_id, "FAILED")
                raise
            finally:
                sender().close(post)
                left = _left(post.box, done)
                if status == "FINISHED":
                    trouble += left
                else:
                    for each in left:
                        print(each, file=sys.stderr)


def _waited(run: Run, interruption: Interruption) -> bool:
    """Wait for a store that does not answer, unless one is told to stop."""
    interruption.lower()
    try:
        done = run.wait(PATIENCE)
    finally:
        interruption.holds += 1
    if not done:
        sender().give_up()
    return done


def _outbox(client: MlflowClient, run_id: str) -> Outbox:
    """Make a run's outbox; without one it ends here."""
    try:
        return Outbox(outbox_root(store_uri()), run_id)
    except Timeout:
        what = f"run {run_id} is being written by {user(outbox_root(store_uri()), run_id)}"
        raise LockedError("E701", what, "wait for its end, or start a run of its own") from None
    except OSError as error:
        client.set_terminated(run_id, "FAILED")
        what = f"what is logged can't be kept on disk ({error})"
        raise ResourceError("E605", what, "free some space there, or make it writable") from error


def _left(box: Outbox, done: bool) -> list[StoreError]:
    """What the store has not taken, as an error; none if it has all."""
    if not done:
        what = f"the tracking store does not answer: what was logged waits in {box.folder}"
        return [StoreError("E502", what, "when it is back, run pti sync with the same store")]
    if box.refused:
        what = f"the tracking store refused a part of run {box.run_id} ({box.refused[0][:120]})"
        return [StoreError("E503", what, f"what was refused is in {box.folder}")]
    return []


def _take(client: MlflowClient, name: str, tags: Mapping[str, object], own: bool) -> str:
    """Make a run, or take the one that ``mlflow run`` made for this process."""
    words = _said(tags)
    given = os.environ.pop("MLFLOW_RUN_ID", None) if own else None
    with answering():
        if given:
            words["mlflow.runName"] = name
            client.log_batch(given, tags=[RunTag(*word) for word in words.items()])
            return given
        place = experiment_id(client, EXPERIMENT)
        return str(client.create_run(place, run_name=name, tags=_source() | words).info.run_id)


def _said(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags that say something, with those of who writes the run."""
    return {key: str(value) for key, value in tags.items() if value not in ("", None)} | birth()


def _go_on(
    client: MlflowClient, box: Outbox, earlier: Earlier, tags: Mapping[str, object], own: bool
) -> Logged:
    """Write on an earlier run; the one that ``mlflow run`` made for this process says so."""
    try:
        logged = revive(client, box, earlier, _said(tags))
        if given := os.environ.pop("MLFLOW_RUN_ID", None) if own else None:
            words = {"mlflow.runName": f"goes on: {earlier.run.name}", CONTINUES: earlier.run.id}
            with answering():
                client.log_batch(given, tags=[RunTag(*word) for word in words.items()])
        return logged
    except BaseException:
        box.close()
        raise


def _source() -> dict[str, str]:
    context: dict[str, Any] = mlflow.tracking.context.registry.resolve_tags()
    return {k: str(v) for k, v in context.items()}
