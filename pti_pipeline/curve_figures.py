"""The figure of a choice: what a sweep measured, its fitted curves, and where they led."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from pti_pipeline.choosing.choice import Choice
from pti_pipeline.choosing.fits import Fits
from pti_pipeline.choosing.points import Point
from pti_pipeline.leak import MARGIN
from pti_pipeline.palette import BLUE, GREEN, INK, MARKERS, PALE, PURPLE, VERMILION

COLORS = {"reconstruction": BLUE, "editability": GREEN, "leak": VERMILION}
PLACE = PURPLE
VALUES = {"reconstruction": "reconstruction", "editability": "editability", "leak": "auc"}


def sweep_figure(
    title: str,
    points: Sequence[Point],
    choice: Choice,
    labels: Mapping[str, str],
    levels: Mapping[str, float],
    others: Sequence[Point] = (),
) -> Figure:
    """Draw reconstruction, editability and leak against the distance travelled.

    Parameters
    ----------
    title : str
    points : sequence of Point
        Those that the choice was made among.
    choice : Choice
    labels : mapping of str to str
        What each panel shows, by :data:`COLORS`' names.
    levels : mapping of str to float
        The reference's value in each panel.
    others : sequence of Point
        Of other pivots or settings: drawn pale, without curves.
    """
    figure = Figure(figsize=(7.4, 2.7), dpi=200, layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), COLORS, strict=True):
        _place(axes, choice)
        axes.axhline(levels[name], color=INK, linewidth=0.8, linestyle=":")
        if name == "leak":
            axes.axhline(MARGIN, color=PALE, linewidth=0.6, linestyle=(0, (1, 3)))
        _curve(axes, name, choice)
        _points(axes, name, points, choice, others)
        _frame(axes, labels[name], points, choice.fits)
        _heights(axes, name, points, levels[name])
    figure.legend(
        **_legend(points, choice),
        loc="outside lower center",
        ncols=9,
        fontsize=6.5,
        frameon=False,
        handlelength=1.8,
        columnspacing=1.2,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.3)},
    )
    figure.suptitle(title, fontsize=9, x=0.01, ha="left", color=INK)
    return figure


def _place(axes: Axes, choice: Choice) -> None:
    """Mark knee or limit, and its interval."""
    if not choice.bracketed:
        return
    ends = [10 ** (p.x) for p in choice.fits.pools if math.isfinite(p.x)]
    if not math.isnan(choice.low):
        low, high = max(choice.low, ends[0]), min(choice.high, ends[-1])
        axes.axvspan(low, high, color=PLACE, alpha=0.22, linewidth=0)
    axes.axvline(choice.value, color=PLACE, linewidth=1.3)


def _curve(axes: Axes, name: str, choice: Choice) -> None:
    """Draw a fitted curve over the range that it was fitted on, and its band over seeds."""
    curve = getattr(choice.fits, name)
    if curve is None:
        return
    x = np.linspace(curve.low, curve.high, 200)
    known = {id(f): f for f in choice.draws}
    drawn = {key: getattr(f, name) for key, f in known.items()}
    values = {key: c(x) for key, c in drawn.items() if c is not None}
    rows = [values[id(f)] for f in choice.draws if id(f) in values]
    if rows:
        low, high = np.quantile(rows, [0.025, 0.975], axis=0)
        axes.fill_between(10**x, low, high, color=COLORS[name], alpha=0.2, linewidth=0)
    style = "--" if curve.flat else "-"
    axes.plot(10**x, curve(x), color=COLORS[name], linewidth=1.5, linestyle=style)


def _points(
    axes: Axes, name: str, points: Sequence[Point], choice: Choice, others: Sequence[Point]
) -> None:
    key = VALUES[name]
    seeds = sorted({p.seed for p in points})
    style: dict[str, Any] = {"linestyle": "", "markersize": 3.6, "markeredgewidth": 0.7}
    for p in others:
        axes.plot(p.distance, getattr(p, key), "o", color=PALE, alpha=0.4, **style)
    for p in (p for p in points if math.isfinite(p.x)):
        marker = MARKERS[seeds.index(p.seed) % len(MARKERS)]
        fill = "white" if p.broken else COLORS[name]
        axes.plot(
            p.distance, getattr(p, key), marker, color=COLORS[name], markerfacecolor=fill, **style
        )
        if name == "leak" and len(seeds) == 1:
            axes.vlines(p.distance, p.low, p.high, color=COLORS[name], linewidth=0.7)
    chosen = points[choice.index]
    axes.plot(
        chosen.distance, getattr(chosen, key), "o", markersize=8.5, markerfacecolor="none",
        markeredgecolor=INK, markeredgewidth=1.1,
    )  # fmt: skip


def _frame(axes: Axes, label: str, points: Sequence[Point], fits: Fits) -> None:
    """Label the axis with distances below and learning rates above."""
    axes.set_xscale("log")
    axes.set_xlabel("distance travelled (L2)", fontsize=7.5, color=INK)
    axes.set_title(label, fontsize=8, color=INK)
    axes.xaxis.set_major_locator(LogLocator(subs=_ticks(fits)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=7, color=INK, labelcolor=INK)
    axes.spines[["right"]].set_visible(False)
    axes.spines[["top"]].set_linewidth(0.4)
    axes.set_axisbelow(True)
    placed = [(p.distance, points[p.rows[0]].lr) for p in fits.pools if math.isfinite(p.x)]
    placed = [(d, lr) for d, lr in placed if math.isfinite(lr)]
    top = axes.secondary_xaxis("top")
    top.set_xscale("log")
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xticks([d for d, _ in placed], [_rate(lr) for _, lr in placed])
    top.tick_params(labelsize=5.5, length=2, pad=1.5, color=PALE, labelcolor=PALE)
    if placed:
        axes.annotate(
            "lr", (0, 1), (-3, 3.5), "axes fraction", "offset points",
            fontsize=5.5, color=PALE, ha="right",
        )  # fmt: skip


def _ticks(fits: Fits) -> tuple[float, ...]:
    xs = [p.x for p in fits.pools if math.isfinite(p.x)]
    return (1.0, 2.0, 5.0) if max(xs) - min(xs) < 1.5 else (1.0, 3.0)


def _rate(lr: float) -> str:
    mantissa, exponent = f"{lr:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _heights(axes: Axes, name: str, points: Sequence[Point], level: float) -> None:
    """Show what was measured with some room; of the leak at least 0.4 to 0.7."""
    values = [getattr(p, VALUES[name]) for p in points if math.isfinite(p.x)]
    shown = [v for v in values if math.isfinite(v)] + [level]
    low, high = min(shown), max(shown)
    if name == "leak":
        ends = [v for p in points for v in (p.low, p.high) if math.isfinite(v)]
        alone = len({p.seed for p in points}) == 1
        low, high = (
            min(low, 0.4, *(ends if alone else [])),
            max(high, 0.7, *(ends if alone else [])),
        )
    elif name == "editability":
        low, high = min(low, 0.8), max(high, 1.02)
    if name == "reconstruction" and low < level - (high - level):
        low = level - 0.5 * (high - level)  # a collapse would flatten all the rest
    room = 0.07 * (high - low)
    axes.set_ylim(low - room, high + room)


def _legend(points: Sequence[Point], choice: Choice) -> dict[str, list[Any]]:
    """Handles and labels, in a row."""
    style: dict[str, Any] = {"color": INK, "linestyle": "", "markersize": 3.6}
    seeds = sorted({p.seed for p in points})
    used = MARKERS[: len(seeds)]
    rows: list[tuple[Any, str]] = [
        (tuple(Line2D([], [], marker=m, **style) for m in used), "a run, marked by its seed")
        if len(seeds) > 1
        else (Line2D([], [], marker=MARKERS[0], **style), "a run")
    ]
    if any(p.broken and not p.diverged for p in points):
        rows.append((Line2D([], [], marker="o", markerfacecolor="white", **style), "collapsed"))
    rows.append((Line2D([], [], color=INK, linewidth=1.5), "fitted"))
    if choice.draws:
        rows.append((Patch(color=INK, alpha=0.2, linewidth=0), "95 % over seeds"))
    rows.append((Line2D([], [], color=INK, linewidth=0.8, linestyle=":"), "reference"))
    if choice.bracketed:
        rows.append((Line2D([], [], color=PLACE, linewidth=1.3), choice.rule))
        if choice.draws:
            rows.append((Patch(color=PLACE, alpha=0.22, linewidth=0), f"{choice.rule}, 95 %"))
    ring = Line2D([], [], color=INK, marker="o", markersize=7, markerfacecolor="none", linestyle="")
    rows.append((ring, "chosen"))
    return {"handles": [handle for handle, _ in rows], "labels": [label for _, label in rows]}
