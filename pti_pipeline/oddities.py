"""What the user should know of pictures that can be trained on all the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from pti_pipeline.pictures import Picture

WIDEST = 4
"""Ratio of a picture's sides above which little of it is used."""
SHOWN = 8
"""Names that one line shows."""


def oddities(names: Sequence[str], pictures: Sequence[Picture], size: int) -> list[str]:
    """One line for each kind of oddity, naming its pictures.

    Parameters
    ----------
    names : sequence of str
    pictures : sequence of Picture
    size : int
        Side of the base model's pictures.
    """
    pairs = list(zip(names, pictures, strict=True))
    told = {
        f"below the base model's {size}x{size} pixels, so blurred": [
            name for name, picture in pairs if min(picture.shape) < size
        ],
        "only the middle square is used, a small part of": [
            name for name, picture in pairs if max(picture.shape) > WIDEST * min(picture.shape)
        ],
        "only the first picture is used of an animation": [
            name for name, picture in pairs if picture.animated
        ],
    }
    lines = [f"{what}: {few(which)}" for what, which in told.items() if which]
    same = _alike((picture.pixels.tobytes(), name) for name, picture in pairs)
    lines += [f"the same picture: {few(which)}" for which in same]
    clashes = _alike((name.casefold(), name) for name in names)
    lines += [f"one file on some systems, several here: {few(which)}" for which in clashes]
    if len(names) == 1:
        lines.append("one picture alone can't tell the subject from its position and environment")
    return lines


def few(names: Sequence[str]) -> str:
    """List names, the first ones if they are many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _alike(pairs: Iterable[tuple[Hashable, str]]) -> list[list[str]]:
    """Names that share a key with others."""
    groups = defaultdict[Hashable, list[str]](list)
    for key, name in pairs:
        groups[key].append(name)
    return [names for names in groups.values() if len(names) > 1]
