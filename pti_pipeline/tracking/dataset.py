"""The pictures that a run learned from, as MLflow's dataset of it, and small copies to look at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pti_pipeline.data import Subject
from pti_pipeline.tracking.run import Run

PICTURES = "pictures.png"
PROMPTS = "preview.txt"
SIDE = 128
"""Of a small copy, in pixels."""
DIGEST = 32
"""Characters of a digest that are shown of the fingerprint; MLflow keeps at most 36."""


def log_dataset(runs: Iterable[Run], subject: Subject, folder: Path) -> None:
    """Say of runs what they learned from; never fail.

    The dataset has the folder's name, not its place, and the pictures' fingerprint as digest.
    """
    count, _, _, side = subject.images.shape
    name = folder.resolve().name
    profile = {
        "pictures": count,
        "captions": sum(caption is not None for caption in subject.captions),
        "resolution": f"{side} x {side}",
        "sha256": subject.fingerprint,
    }
    dataset = {
        "name": name,
        "digest": subject.fingerprint[:DIGEST],
        "source_type": "local",
        "source": json.dumps({"folder": name}),
        "profile": json.dumps(profile),
    }
    for run in runs:
        run.log_dataset(dataset)


def log_pictures(run: Run, seen: Sequence[Subject]) -> None:
    """Log the pictures side by side as artifact :data:`PICTURES`: their pixels and nothing else.

    Parameters
    ----------
    run : Run
    seen : sequence of Subject
        Those of each shape.
    """
    with TemporaryDirectory() as folder:
        Image.fromarray(sheet(seen)).save(Path(folder) / PICTURES)
        run.log_artifact(Path(folder) / PICTURES)


def log_prompts(run: Run, prompts: Sequence[str]) -> None:
    """Log the prompts of sample grids, one a line, as artifact :data:`PROMPTS`."""
    run.log_text("\n".join(prompts), PROMPTS)


def sheet(seen: Sequence[Subject]) -> NDArray[np.uint8]:
    """Pictures as they were learned from, side by side and at most :data:`SIDE` pixels high.

    Parameters
    ----------
    seen : sequence of Subject
        Of several shapes, which keep their proportions.

    Returns
    -------
    ndarray, shape (side, width, 3), uint8
    """
    side = min(SIDE, *(each.images.shape[2] for each in seen))
    return np.concatenate([small for each in seen for small in _small(each, side)], axis=1)


def _small(subject: Subject, height: int) -> list[NDArray[np.uint8]]:
    rows = subject.images.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    size = round(height * rows.shape[2] / rows.shape[1]), height
    small = (Image.fromarray(row).resize(size, Image.Resampling.LANCZOS) for row in rows)
    return [np.asarray(picture) for picture in small]
