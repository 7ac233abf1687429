"""How many pictures an autoencoder takes at once: its memory goes with their pixels."""

PIXELS = 2**20
"""At once at most, but one picture at least: one of 1024 pixels a side, four of 512."""
MOST = 64
"""Pictures at once at most, however small."""


def pictures_at_once(side: int) -> int:
    """Pictures of ``side`` pixels that are encoded or decoded at once.

    Examples
    --------
    >>> pictures_at_once(512), pictures_at_once(2048)
    (4, 1)
    """
    return max(1, min(MOST, PIXELS // side**2))
