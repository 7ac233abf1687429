"""A character behind a server: what one request may ask, and the answer."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pti_pipeline.bundle import Bundle, draw_bundles
from pti_pipeline.errors import ResourceError, UsageError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.ranges import check_seed
from pti_pipeline.settings import SampleSettings


@dataclass(frozen=True)
class Limits:
    """Caps of one request.

    Attributes
    ----------
    side : int
        Of a picture, in pixels. It is the base model's own.
    pictures : int
        Prompts times ``count``.
    prompt : int
        Characters of a prompt.
    steps : int
        Of the sampler.
    guidance : float
    seconds : float
        From arrival to the last denoising step; less than MLflow's own limit of 60, which would
        leave the work going on.
    waiting : int
        Requests at once, the one that is drawn included.
    """

    side: int = 1024
    pictures: int = 4
    prompt: int = 1000
    steps: int = 100
    guidance: float = 30.0
    seconds: float = 50.0
    waiting: int = 8


LIMITS = Limits()


@dataclass(frozen=True)
class Served:
    """A character ready to answer; its base model is lent to one request at a time."""

    base: BaseModel
    bundle: Bundle
    limits: Limits
    turn: Lock
    room: BoundedSemaphore


def serve(base: BaseModel, bundle: Bundle, limits: Limits = LIMITS) -> Served:
    """Make a character ready to answer."""
    return Served(base, bundle, limits, Lock(), BoundedSemaphore(limits.waiting))


def answer(
    served: Served, prompts: Sequence[str], params: Mapping[str, Any]
) -> list[tuple[int, bytes]]:
    """Draw ``count`` pictures of each prompt, with consecutive seeds; return seeds and PNG files.

    Parameters
    ----------
    served : Served
    prompts : sequence of str
        ``{}`` stands for the character's token.
    params : mapping
        ``seed``, ``steps``, ``guidance``, ``count``.

    Raises
    ------
    UsageError
        If it asks for more than the limits allow.
    ResourceError
        If it takes too long, or too many wait already.
    ModelError
        If what was drawn is no picture.
    """
    until = time.monotonic() + served.limits.seconds
    texts, seeds, how = read_request(prompts, params, served.base.resolution, served.limits)
    if not served.room.acquire(blocking=False):
        what = f"{served.limits.waiting} requests are being answered"
        raise ResourceError("E604", what, "try again later")
    try:
        with _turn(served, until), deadline(served.base, until):
            pictures = draw_bundles(served.base, [served.bundle], texts, seeds, how)
    finally:
        served.room.release()
    return list(zip(seeds, map(_png, pictures), strict=True))


def read_request(
    prompts: Sequence[str], params: Mapping[str, Any], side: int, limits: Limits
) -> tuple[list[str], list[int], SampleSettings]:
    """Return a prompt and a seed for every picture, and how to draw; else raise ``UsageError``.

    ``side`` is that of the base model's pictures.
    """
    try:
        count, seed, steps = (int(params[name]) for name in ("count", "seed", "steps"))
        guidance = float(params["guidance"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError("E255", f"a parameter is no number ({error})", "give numbers") from error
    check_seed(seed)
    asked = {
        "the pictures' side": (side, limits.side),
        "the number of pictures": (len(prompts) * count, limits.pictures),
        "the longest prompt": (max(map(len, prompts), default=0), limits.prompt),
        "steps": (steps, limits.steps),
        "guidance": (guidance, limits.guidance),
    }
    for name, (value, most) in asked.items():
        if not value <= most:
            raise UsageError("E255", f"{name} is {value:g}", f"at most {most:g} is answered")
    if len(prompts) * count < 1:
        raise UsageError("E255", "no picture is asked for", "give a prompt, and a count from 1")
    texts = [text for text in prompts for _ in range(count)]
    seeds = [seed + i for _ in prompts for i in range(count)]
    return texts, seeds, SampleSettings(steps, guidance)


@contextmanager
def deadline(base: BaseModel, until: float) -> Iterator[None]:
    """Let a base model refuse to denoise after ``until`` (of ``time.monotonic``), for a while.

    Raises
    ------
    ResourceError
        At the first denoising step after it.
    """

    def check(*_: Any) -> None:
        if time.monotonic() > until:
            raise _late()

    hook = base.denoiser.register_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _turn(served: Served, until: float) -> Iterator[None]:
    if not served.turn.acquire(timeout=max(0.0, until - time.monotonic())):
        raise _late()
    try:
        yield
    finally:
        served.turn.release()


def _late() -> ResourceError:
    return ResourceError(
        "E603", "the time for a request is over", "ask for fewer steps or pictures"
    )


def _png(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
