"""Sweeps whose knee and limit are known, and how well they are found.

python tests/maths/simulated_sweeps.py prints the table of docs/explanation/choice.md.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from pti_pipeline.choosing.cross_checks import breakpoint, isotonic_crossing, kneedle
from pti_pipeline.choosing.knee import choose_pivot
from pti_pipeline.choosing.limit import choose_limit
from pti_pipeline.choosing.points import Point
from pti_pipeline.randomness import numpy_generator

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
BETWEEN = 0.05
"""Decades (sd) by which a seed's curves are shifted."""
KNEE = -0.6
"""x at which the true gain is 90 % of its height."""
LIMIT = 0.9
"""x at which the true AUC is 0.55."""


def rise(x, where, share, width=0.15, shape="logistic"):
    """Curve from 0 to 1 that passes ``share`` at x = ``where``."""
    if shape == "logistic":
        return expit((x - where) / width + math.log(share / (1 - share)))
    middle = where + width * math.log(-math.log(share)) * 2  # Gompertz: a long approach to 1
    return np.exp(-np.exp(-(x - middle) / (2 * width)))


def inversion(rng, seeds, noise=0.002, samples=256, shape="logistic", rates=RATES):
    """Sweep of an inversion whose knee is at :data:`KNEE` and editability falls far beyond."""
    points = []
    for seed in range(seeds):
        shift = BETWEEN * rng.standard_normal()
        for rate in rates:
            x = -0.3 + 0.6 * math.log10(rate / 1e-3) + 0.01 * rng.standard_normal()
            gain = 0.04 * rise(x, KNEE + shift, 0.9, shape=shape) + noise * rng.standard_normal()
            kept = 1 - 0.5 * rise(x, 1.0, 0.1) + 0.02 * rng.standard_normal()
            points.append(point(rng, 10**x, gain, kept, 0.5, samples, seed, rate))
    return points


def tuning(rng, seeds, samples=256, shape="logistic", rates=RATES, plateau=0.8):
    """Sweep of a tuning whose limit is at :data:`LIMIT`; its last rate collapses, leaking no more.

    Around one pivot the reference's samples are shared, so their part of the error is too.
    """
    points = []
    shared = [rng.standard_normal()] * len(rates)
    for seed in range(seeds):
        shift = BETWEEN * rng.standard_normal()
        for k, rate in enumerate(rates):
            x = 1.2 + 0.8 * math.log10(rate / 1e-3) + 0.01 * rng.standard_normal()
            leaked = rise(x, LIMIT + shift, 0.05 / (plateau - 0.5), shape=shape)
            auc = 0.5 if k == len(rates) - 1 else 0.5 + (plateau - 0.5) * leaked
            kept = 0.3 if k == len(rates) - 1 else 1.0
            gain = 0.5 + 0.2 * rise(x, 0.6, 0.9) + 0.01 * rng.standard_normal()
            points.append(point(rng, 10**x, gain, kept, auc, samples, seed, rate, shared[k]))
    return points


def point(rng, distance, gain, kept, auc, samples, seed, rate, shared=None):
    """Point whose leak is measured with the error of that many samples against as many."""
    error = 1 / math.sqrt(6 * samples)
    common = rng.standard_normal() if shared is None else shared
    found = auc + error * (rng.standard_normal() + common) / math.sqrt(2)
    ends = found - 1.96 * error, found + 1.96 * error
    p = float(norm.sf((found - 0.5) / error))
    return Point(distance, gain, kept, p, found, *ends, samples=samples, seed=seed, lr=rate)


def spread(stage, seeds, trials, samples=256, shape="logistic"):
    """Bias, standard deviation, coverage and share bracketed of what is chosen, in decades."""
    found, held = [], []
    truth = KNEE if stage == "knee" else LIMIT
    for trial in range(trials):
        rng = numpy_generator(trial, f"{stage}/{seeds}/{samples}/{shape}", 0)
        if stage == "knee":
            choice = choose_pivot(inversion(rng, seeds, samples=10**6, shape=shape))
        else:
            choice = choose_limit(tuning(rng, seeds, samples, shape), 0.5)
        if choice.bracketed:
            found.append(math.log10(choice.value) - truth)
            held.append(choice.low <= 10**truth <= choice.high)
    return np.mean(found), np.std(found), np.mean(held), len(found) / trials


def others(seeds, trials):
    """Bias and standard deviation of the cross-checks on the same inversions."""
    found = {"isotonic": [], "Kneedle": [], "two segments": []}
    for trial in range(trials):
        points = inversion(numpy_generator(trial, f"knee/{seeds}/256/logistic", 0), seeds, 0.002)
        x, y = (np.array([getattr(p, key) for p in points]) for key in ("x", "reconstruction"))
        top = np.median(np.sort(y)[-seeds * 2 :])
        crossed = isotonic_crossing(x, y, 0.9 * top, rising=True)
        found["isotonic"].append(math.nan if crossed is None else crossed - KNEE)
        found["Kneedle"].append(kneedle(x, y) - KNEE)
        found["two segments"].append(breakpoint(x, y) - KNEE)
    return {name: (np.nanmean(v), np.nanstd(v)) for name, v in found.items()}


def table(trials):
    """Rows of the page's table."""
    lines = [
        "| what | seeds | bias | sd | interval holds the truth | bracketed |",
        "|---|---|---|---|---|---|",
    ]
    for stage, shape in (("knee", "logistic"), ("knee", "Gompertz"), ("limit", "logistic")):
        for seeds in (1, 2, 3, 5):
            bias, sd, held, found = spread(stage, seeds, trials, shape=shape)
            inside = "-" if seeds == 1 else f"{held:.0%}"
            lines.append(
                f"| {stage}, {shape} | {seeds} | {bias:+.3f} | {sd:.3f} | {inside} | {found:.0%} |"
            )
    for seeds in (1, 5):
        for name, (bias, sd) in others(seeds, trials).items():
            lines.append(f"| knee, by {name} | {seeds} | {bias:+.3f} | {sd:.3f} | - | - |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(100))
