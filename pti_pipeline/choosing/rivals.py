"""Two tunings, each at its own limit: which of the two to keep."""

from __future__ import annotations

from dataclasses import dataclass

KEPT = 0.95
"""Share of the other's editability, or reconstruction, that counts as no loss."""


@dataclass(frozen=True)
class Rival:
    """A tuning at its limit.

    Attributes
    ----------
    name : str
        What it was tuned with: ``"no regularizer"``, ``"locality"``.
    distance : float
    reconstruction, editability : float
        Higher is better; NaN if unknown.
    sound : bool
        False if it leaks or collapsed, and was taken for want of a better one.
    """

    name: str
    distance: float
    reconstruction: float
    editability: float
    sound: bool


def prefer(usual: Rival, other: Rival) -> tuple[bool, str]:
    """Whether ``other`` is to be kept rather than ``usual``, and why, in half a sentence.

    Both are at a limit of their own, up to which no leak was found. Where both keep :data:`KEPT` of
    each other's editability, the one that reconstructs better is kept. Where one does not, the more
    editable one is kept; but ``other`` only if it keeps as much of the reconstruction. A draw, or
    what is unknown, is for the usual one.

    Examples
    --------
    >>> light, held = Rival("none", 12, 0.70, 0.9, True), Rival("locality", 22, 0.73, 0.9, True)
    >>> prefer(light, held)
    (True, 'locality reconstructs better at its limit: 0.730 at distance 22, none 0.700 at 12')
    """
    pair = (
        f"{other.reconstruction:.3f} at distance {other.distance:.3g}, "
        f"{usual.name} {usual.reconstruction:.3f} at {usual.distance:.3g}"
    )
    if usual.sound != other.sound:
        worse = usual.name if other.sound else other.name
        return other.sound, f"{worse} leaks or collapses at every distance"
    if other.editability < KEPT * usual.editability:
        share = other.editability / usual.editability
        return False, f"{other.name} keeps only {share:.0%} of the editability"
    if usual.editability < KEPT * other.editability:
        share = usual.editability / other.editability
        if other.reconstruction >= KEPT * usual.reconstruction:
            return True, f"{usual.name} keeps only {share:.0%} of the editability"
    if not other.reconstruction > usual.reconstruction:
        return False, f"{other.name} reconstructs no better at its limit: {pair}"
    return True, f"{other.name} reconstructs better at its limit: {pair}"
