"""Which distances of a sweep are worth sampling: twins are cheap and tell where to look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pti_pipeline.inference import onset

ONSET = 0.1
"""Share of its largest gain at which a position counts as being learnt."""


def deciding(distances: Sequence[float], gains: Sequence[float], count: int) -> list[int]:
    """Places around the start of positions' being learnt, half of them beyond it.

    Parameters
    ----------
    distances, gains : sequence of float, length n
        Of each place, the distance and what the training pictures gained beyond twins that differ
        in the position alone.
    count : int
        Places to take; 0 for all.

    Returns
    -------
    list of int
        Neighbours, by increasing distance. Samples show a leak later than twins do. Where positions
        never start, these are the farthest.

    Examples
    --------
    >>> deciding([1, 2, 4, 8, 16, 32, 64], [0, 0, 0, 0, 0.1, 0.15, 0.2], 4)
    [2, 3, 4, 5]
    """
    order = [int(i) for i in np.argsort(distances)]
    n = len(order)
    if not 0 < count < n:
        return order
    x, y = np.asarray(distances, float)[order], np.asarray(gains, float)[order]
    start = onset(x, y, ONSET)
    beyond = int(np.searchsorted(x, start)) if np.isfinite(start) else n
    first = min(max(beyond - count // 2, 0), n - count)
    return order[first : first + count]
