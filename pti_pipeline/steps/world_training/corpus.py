"""The renders that the world's models learn from: drawn once, kept beside the training's state."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.randomness import generator, numpy_generator
from pti_pipeline.world import Factors, caption, concatenate, render_with_masks, sample_factors


@dataclass(frozen=True)
class Corpus:
    """Renders and the factors they were drawn from.

    Attributes
    ----------
    factors : Factors
        Of length ``n``.
    images : Tensor, shape (n, 3, S, S), uint8
    masks : Tensor, shape (n, S, S), bool
        Where the character is.
    seed : int
        Of the draws.
    """

    factors: Factors
    images: Tensor
    masks: Tensor
    seed: int

    def rows(self, stream: str, step: int, count: int) -> Tensor:
        """Draw ``count`` row numbers with replacement, as a function of (seed, stream, step)."""
        return torch.randint(
            len(self.images), (count,), generator=generator(self.seed, stream, step)
        )

    def pixels(self, rows: Tensor) -> Tensor:
        """Images of ``rows``, float32 in [-1, 1], shape (len(rows), 3, S, S)."""
        return self.images[rows].float().div_(127.5).sub_(1)

    def captions(self, rows: Tensor, stream: str, step: int) -> list[str]:
        """Draw one new caption for each row: attributes are dropped afresh every time."""
        rng = numpy_generator(self.seed, stream, step)
        return [caption(self.factors, int(i), rng) for i in rows]


def build_corpus(
    folder: Path, name: str, images: int, size: int, seed: int, held_out: bool
) -> Iterator[int]:
    """Render ``folder/<name>.npz`` unless it is there; yield the number of images done.

    ``held_out`` adds what the base model never sees (see :func:`sample_factors`): for readers.
    """
    path = folder / f"{name}.npz"
    if path.is_file():
        _check(path, images)
        return
    folder.mkdir(parents=True, exist_ok=True)
    factors, pixels, masks = [], [], []
    for chunk in range(0, images, 500):
        rng = numpy_generator(seed, f"corpus/{name}", chunk)
        part = sample_factors(min(500, images - chunk), rng, held_out)
        factors.append(part)
        drawn, mask = render_with_masks(part, size)
        pixels.append(drawn)
        masks.append(mask)
        yield chunk + len(part)
    columns = concatenate(factors)
    arrays = {field.name: getattr(columns, field.name) for field in fields(columns)}
    temporary = path.with_name("unfinished.npz")
    np.savez(temporary, images=np.concatenate(pixels), masks=np.concatenate(masks), **arrays)
    temporary.replace(path)


def _check(path: Path, images: int) -> None:
    """Raise ``UsageError`` unless the pictures are as many as asked for, and drawn as today."""
    with _arrays(path) as arrays:
        first = Factors(**{field.name: arrays[field.name][:4] for field in fields(Factors)})
        drawn = arrays["images"]
    # another processor may round a pixel otherwise
    gap = np.abs(render_with_masks(first, drawn.shape[1])[0].astype(int) - drawn[:4]).mean()
    if len(drawn) != images or gap > 0.1:
        raise UsageError(
            "E222", f"'{path}' holds another version's pictures", "train in a new --folder"
        )


@contextmanager
def _arrays(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """Open a file of arrays; numpy refuses those of objects, which it would unpickle."""
    hint = "move it away: it is rendered again"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile, zlib.error) as error:
        if "pickle" in str(error):
            what = f"'{path}' may hold a pickle, which can run code"
            raise ModelError("E410", what, hint) from error
        raise ModelError("E409", f"'{path}' can't be read ({error})", hint) from error


def load_corpus(folder: Path, name: str, seed: int) -> Corpus:
    """Read the corpus that :func:`build_corpus` rendered."""
    with _arrays(folder / f"{name}.npz") as arrays:
        factors = Factors(**{field.name: arrays[field.name] for field in fields(Factors)})
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).contiguous()
        masks = torch.from_numpy(arrays["masks"])
    return Corpus(factors, images, masks, seed)
