"""A character's files, and pictures drawn from them: base model + learned tokens + LoRAs.

A bundle is a folder with ``learned_embeds.safetensors``, ``pytorch_lora_weights.safetensors``
(unless the character is a pivot alone), a card and samples where there are some, and
``bundle.json``, which says what base model they are for and carries the hashes of all the others:
what the registry holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pti_pipeline.blending import LoRA, blended
from pti_pipeline.characters import Characters, draw, together
from pti_pipeline.errors import ModelError
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.hashes import both, check_hashes, file_hashes
from pti_pipeline.pivot import Pivot, load_pivot
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import SampleSettings

LORA_FILE = "pytorch_lora_weights.safetensors"
PIVOT_FILE = "learned_embeds.safetensors"
BUNDLE_FILE = "bundle.json"
CARD_FILE = "README.md"
GRID_FILE = "samples.png"


@dataclass(frozen=True)
class Bundle:
    """A character as it was read from its folder.

    Attributes
    ----------
    fingerprint : str
        Of the base model that it is for.
    pivot : Pivot
    lora : LoRA or None
    """

    fingerprint: str
    pivot: Pivot
    lora: LoRA | None


def seal(folder: Path, facts: Mapping[str, str]) -> None:
    """Write ``bundle.json``: ``facts``, and the SHA-256 of every other file of ``folder``."""
    text = json.dumps({**facts, "files": file_hashes(folder)}, indent=2)
    (folder / BUNDLE_FILE).write_text(text, encoding="utf-8")


def unseal(folder: Path) -> dict[str, str]:
    """Return the facts of ``bundle.json``.

    Raises
    ------
    ModelError
        If there is none, it lacks something, or the other files are not those it was written for.
    """
    try:
        facts = json.loads((folder / BUNDLE_FILE).read_text(encoding="utf-8"))
        expected, told = dict(facts["files"]), {k: str(facts[k]) for k in ("base", "token", "run")}
        told["base_fingerprint"] = str(facts["base_fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"'{folder}' has no {BUNDLE_FILE} that says what it holds ({error!r})"
        raise ModelError("E426", what, "register the character again") from error
    found = file_hashes(folder)
    found.pop(BUNDLE_FILE)
    check_hashes(f"bundle '{folder}'", expected, found)
    return told


def load_bundles(
    folders: Sequence[Path], base: str = "", device: str = "auto", precision: str = "fp32"
) -> tuple[BaseModel, list[Bundle]]:
    """Load the base model of some characters, and them; nothing is attached yet.

    Parameters
    ----------
    folders : sequence of Path
        One bundle each.
    base : str
        Where the base model is on this machine; the one that the first bundle names by default.
    device, precision : str
        See :func:`pti_pipeline.families.load`.

    Raises
    ------
    ModelError
        If files have changed, or the base is not the one that a character was trained on.
    """
    facts = [unseal(folder) for folder in folders]
    model = load(base or facts[0]["base"], device, precision)
    bundles = []
    for folder, told in zip(folders, facts, strict=True):
        _check_base(model, told["token"], told["base_fingerprint"])
        file = folder / LORA_FILE
        lora = LoRA(*model.load_lora(file)) if file.is_file() else None
        bundles.append(Bundle(told["base_fingerprint"], load_pivot(folder / PIVOT_FILE), lora))
    return model, bundles


@contextmanager
def attached(
    base: BaseModel, bundles: Sequence[Bundle], weights: Sequence[float] = ()
) -> Iterator[Characters]:
    """Put characters onto one base model, for a while; it is then as it was, bit for bit.

    Parameters
    ----------
    base : BaseModel
        Without a LoRA.
    bundles : sequence of Bundle
    weights : sequence of float
        Of their LoRAs, see :func:`pti_pipeline.blending.blended`; all 1 by default.

    Yields
    ------
    Characters
        Who can be named in prompts.

    Raises
    ------
    ModelError
        If one was trained on another base model.
    UsageError
        If their tokens can't be told apart.
    """
    for bundle in bundles:
        _check_base(base, bundle.pivot.token, bundle.fingerprint)
    who = together([bundle.pivot for bundle in bundles])
    pairs = zip(bundles, weights or [1.0] * len(bundles), strict=True)
    tuned = [(bundle.lora, weight) for bundle, weight in pairs if bundle.lora is not None]
    loras, shares = [lora for lora, _ in tuned], [weight for _, weight in tuned]
    with blended(base.denoiser, loras, shares, base.encoders):
        yield who


def draw_bundles(
    base: BaseModel,
    bundles: Sequence[Bundle],
    prompts: Sequence[str],
    seeds: Sequence[int],
    how: SampleSettings,
    weights: Sequence[float] = (),
) -> NDArray[np.uint8]:
    """Draw prompt i with seed i; ``{}`` stands for the tokens. Shape (n, H, W, 3), uint8.

    Raises
    ------
    ModelError
        If a picture is not finite or black all over, which is what broken weights draw.
    """
    with attached(base, bundles, weights) as who:
        images = draw(base, who, prompts, seeds, how)[0]
    pictures = to_uint8(images)
    if not bool(images.isfinite().all()) or not pictures.any((1, 2, 3)).all():
        hint = "use smaller weights or guidance, or --precision=fp32"
        raise ModelError("E427", "a picture came out black or not finite", hint)
    return pictures


def _check_base(base: BaseModel, token: str, fingerprint: str) -> None:
    if base.fingerprint != fingerprint:
        told = both(fingerprint, base.fingerprint)
        raise ModelError(
            "E404",
            f"base model '{base.name}' is not the one that '{token}' was trained on ({told})",
            "name the folder of the right base with --base",
        )
