"""Which distances of a sweep are worth sampling: twins are cheap and tell where to look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pti_pipeline.inference import onset

ONSET = 0.1
"""Share of its largest gain at which a position counts as being learnt."""


def deciding(distances: Sequence[float], gains: Sequence[float], count: int) -> list[int]:
    """Places nearest to where positions start being learnt.

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
        By increasing distance. Nearness is that of log distance; one of them lies beyond the start
        if any does.

    Examples
    --------
    >>> deciding([1, 2, 4, 8, 16, 32, 64], [0, 0, 0.01, 0.02, 0.1, 0.15, 0.2], 3)
    [2, 3, 4]
    """
    order = np.argsort(distances)
    if not 0 < count < len(order):
        return [int(i) for i in order]
    x, y = np.asarray(distances, float)[order], np.asarray(gains, float)[order]
    start = onset(x, y, ONSET)
    at = np.log10(start if np.isfinite(start) else x[-1])
    nearest = np.argsort(np.abs(np.log10(x) - at), kind="stable")[:count]
    beyond = np.flatnonzero(np.log10(x) > at)
    if len(beyond) and not np.isin(beyond, nearest).any():
        nearest[-1] = beyond[0]
    return [int(order[i]) for i in sorted(nearest)]
