"""Reads the factors back from a picture: what is drawn, and where."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pti_pipeline.errors import ModelError
from pti_pipeline.weights import read_weights, refuse_pickle
from pti_pipeline.world import factors as f
from pti_pipeline.world.factors import Factors

CLASSES = {
    "species": len(f.SPECIES),
    "color": len(f.COLORS),
    "belly": len(f.COLORS),
    "hat": len(f.HATS),
    "hat_color": len(f.COLORS),
    "emblem": len(f.EMBLEMS),
    "eyes": len(f.EYES),
    "scene": len(f.SCENES),
    "column": len(f.COLUMNS),
    "row": len(f.ROWS),
    "facing": 2,
    "arms": 2,
}
"""Number of values of each categorical factor."""

PLACES = {"x": f.X_RANGE, "y": f.Y_RANGE, "size": f.SIZE_RANGE}
"""Continuous factors and their ranges, in fractions of the image's side."""

WEIGHTS = Path(__file__).parent / "weights" / "reader" / "model.safetensors"


class Reader(nn.Module):
    """A small convolutional network with one head for each factor.

    It is trained on 48 px renders; other sizes are resized to that.
    """

    def __init__(self, width: int = 32, size: int = 48) -> None:
        super().__init__()
        self.size = size
        widths = (3, width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, 1, 1), nn.GroupNorm(8, after), nn.SiLU()]
        flat = widths[-1] * (size // 16) ** 2
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 256), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(256, n) for name, n in CLASSES.items()})
        self.place = nn.Linear(256, len(PLACES))
        low, high = torch.tensor(list(PLACES.values())).T
        self.register_buffer("center", (low + high) / 2, persistent=False)
        self.register_buffer("reach", (high - low) / 2, persistent=False)

    def forward(self, pixels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits by categorical factor, and places.

        Parameters
        ----------
        pixels : Tensor, shape (n, 3, S, S), float in [-1, 1]

        Returns
        -------
        dict of str to Tensor, each of shape (n, classes)
        Tensor, shape (n, 3), in fractions of the side
        """
        if pixels.shape[-1] != self.size:
            pixels = nn.functional.interpolate(pixels, self.size, mode="area")
        hidden = self.trunk(pixels)
        return {
            name: head(hidden) for name, head in self.heads.items()
        }, self.center + self.reach * self.place(hidden)

    @torch.no_grad()
    def read(self, pixels: Tensor) -> dict[str, Tensor]:
        """Most likely value of each factor; categorical ones as int64, places as float, (n,)."""
        logits, place = self(pixels)
        values = {name: logit.argmax(1) for name, logit in logits.items()}
        return values | {name: place[:, i] for i, name in enumerate(PLACES)}


def load_reader(path: Path = WEIGHTS) -> Reader:
    """Load the trained reader, frozen, in float32.

    Raises
    ------
    ModelError
        If the file may be a pickle, or holds no reader.
    """
    refuse_pickle(path)
    reader = Reader()
    try:
        found = read_weights(path)[0]
        reader.load_state_dict({name: value.float() for name, value in found.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        what = f"'{path}' holds no reader ({str(error).splitlines()[0]})"
        raise ModelError("E409", what, "give a folder made by pti world export") from error
    return reader.eval().requires_grad_(False)


def class_targets(factors: Factors) -> dict[str, Tensor]:
    """True values of the categorical factors, int64, each of shape (n,)."""
    values = {
        "column": f.column(factors.x),
        "row": f.row(factors.y),
        **{k: getattr(factors, k) for k in CLASSES if k not in ("column", "row")},
    }
    return {name: torch.as_tensor(values[name]).long() for name in CLASSES}


def place_targets(factors: Factors) -> Tensor:
    """True places, float32, shape (n, 3), columns as in :data:`PLACES`."""
    return torch.stack([torch.as_tensor(getattr(factors, name)).float() for name in PLACES], 1)
