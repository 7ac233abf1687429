"""How often the leak tests err on positions drawn at random: python tests/maths/calibration.py.

Positions are uniform in the unit square, a copy stands within 0.05 (sd) of a training position, and
every trial draws its own training set, reference and samples.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from pti_pipeline import leak
from pti_pipeline.randomness import numpy_generator

COPIED_WITHIN = 0.05


def positions(rng, n, training, copied):
    """Positions (n, 2); a share of them copies of the training's."""
    found = rng.uniform(0, 1, (n, 2))
    rows = np.flatnonzero(rng.random(n) < copied)
    near = training[rng.integers(0, len(training), len(rows))]
    found[rows] = near + COPIED_WITHIN * rng.standard_normal((len(rows), 2))
    return found


def distances(trial, n, images, copied, stream):
    """One trial's distances of tuned and reference samples to their training set."""
    rng = numpy_generator(trial, f"{stream}/{n}/{images}/{copied}", 0)
    training = rng.uniform(0, 1, (images, 2))
    tuned, reference = positions(rng, n, training, copied), positions(rng, n, training, 0)
    return leak.nearest(tuned, training), leak.nearest(reference, training)


def alarms(trials, n, images, copied):
    """Share of trials in which a leak is detected."""
    found = (distances(t, n, images, copied, "alarms") for t in range(trials))
    return np.mean([leak.p_value(*pair) < leak.SIGNIFICANT for pair in found])


def words(trials, n, images, copied):
    """Share of trials by the verdict's words, and of those whose upper bound is below 0.55."""
    found = [leak.certified(*distances(t, n, images, copied, "certificate")) for t in range(trials)]
    shares = Counter(v.words for v in found)
    below = np.mean([v.upper < leak.MARGIN for v in found])
    return {name: shares[name] / trials for name in shares}, below


def copying_found(trials, n, images, copied, centred=False):
    """Share of trials in which the test against random layout sets finds copying, and its AUC's."""
    found, fooled = [], []
    for trial in range(trials):
        rng = numpy_generator(trial, f"sets/{n}/{images}/{copied}", 0)
        training = rng.uniform(0, 1, (images, 2))
        reference = positions(rng, n, training, 0)
        samples = positions(rng, n, training, copied)
        if centred:
            training[0] = 0.5 + 0.1 * rng.standard_normal(2)  # one picture shows it in the middle
            samples = 0.5 + 0.05 * rng.standard_normal((n, 2))
        draw = layout_sets(rng, images, centred)
        found.append(leak.copying_p(samples, training, draw) < leak.SIGNIFICANT)
        pair = leak.nearest(samples, training), leak.nearest(reference, training)
        fooled.append(leak.p_value(*pair) < leak.SIGNIFICANT)
    return np.mean(found), np.mean(fooled)


def layout_sets(rng, images, centred):
    """Draw sets as the training set of :func:`copying_found` is drawn."""

    def draw(_):
        drawn = rng.uniform(0, 1, (images, 2))
        if centred:
            drawn[0] = 0.5 + 0.1 * rng.standard_normal(2)
        return drawn

    return draw


def table(trials):
    """Rows of the page's tables."""
    shares = (0.0, 0.1, 0.2, 0.4)
    lines = ["| samples | pictures | 0 % | 10 % | 20 % | 40 % |", "|---|---|---|---|---|---|"]
    for n in (64, 256, 1024):
        for images in (4, 8, 16):
            row = [f"{alarms(trials, n, images, share):.1%}" for share in shares]
            lines.append(f"| {n} | {images} | " + " | ".join(row) + " |")
    lines += ["", "| samples | copies | detected | certified free | not certified | upper < 0.55 |"]
    lines.append("|---|---|---|---|---|---|")
    for n in (64, 256, 1024):
        for share in shares:
            found, below = words(trials, n, 6, share)
            cells = [found.get(w, 0.0) for w in ("detected", "certified free", "not certified")]
            row = [f"{c:.1%}" for c in (*cells, below)]
            lines.append(f"| {n} | {share:.0%} | " + " | ".join(row) + " |")
    lines += [
        "",
        "| copies, 6 pictures, 256 samples | layout-set test | AUC test |",
        "|---|---|---|",
    ]
    for share in shares:
        found = copying_found(trials // 5, 256, 6, share)
        lines.append(f"| {share:.0%} | {found[0]:.1%} | {found[1]:.1%} |")
    found = copying_found(trials // 5, 256, 6, 0.0, centred=True)
    lines.append(f"| none, but all centred | {found[0]:.1%} | {found[1]:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(2000))
