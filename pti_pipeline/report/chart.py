"""A panel as inline SVG: places are percentages, so that it fits any width and text keeps its size.

Only the curves live in a stretched coordinate system of their own; a percentage can't stand in a
path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pti_pipeline.report.markup import Html, el
from pti_pipeline.report.numerals import between, number
from pti_pipeline.report.panels import Curve, Panel, Point

MARKERS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-4.8L4.6,3.6H-4.6z",
    "M0,-5L5,0L0,5L-5,0z",
)
"""Outlines by style: circle, square, triangle, diamond."""


def chart(panel: Panel, stops: Sequence[float] = ()) -> Html:
    """Draw a panel with its caption and legend.

    Parameters
    ----------
    panel : Panel
    stops : sequence of float
        Distances at which samples were drawn: small ticks on the axis.
    """
    stretched = {"viewBox": "0 0 100 100", "preserveAspectRatio": "none", "class_": "lines"}
    drawing = el(
        "svg",
        *_grid(panel),
        *_choice(panel),
        el("svg", *_lines(panel), **stretched),
        *(el("line", **_upright(panel, stop, "97%"), class_="stop-tick") for stop in stops),
        el("line", x1="-9", x2="-9", y1="0", y2="100%", class_="cursor"),
        *(_marker(panel, curve, p) for curve in panel.curves for p in _marked(curve)),
        role="img",
        aria_label=_told(panel),
    )
    caption = el(
        "figcaption",
        el("h3", panel.title),
        el("p", panel.note, class_="note"),
        _legend(panel),
    )
    return el("figure", caption, el("div", drawing, class_="plot"), class_="panel")


def _grid(panel: Panel) -> list[Html]:
    parts = []
    for tick in panel.y.ticks:
        y = _y(panel, tick)
        parts.append(el("line", x1="0", x2="100%", y1=y, y2=y, class_="grid"))
        parts.append(el("text", number(tick), x="0", y=y, dx=-8, dy=4, class_="y"))
    for tick in panel.x.ticks:
        parts.append(el("line", **_upright(panel, tick, "0"), class_="grid"))
        parts.append(el("text", f"{tick:g}", x=_x(panel, tick), y="100%", dy=17, class_="x"))
    if math.isfinite(panel.level):
        y = _y(panel, panel.level)
        parts.append(el("line", x1="0", x2="100%", y1=y, y2=y, class_="level"))
    return parts


def _choice(panel: Panel) -> list[Html]:
    if not math.isfinite(panel.chosen):
        return []
    at = panel.x.at(panel.chosen)
    parts = []
    if math.isfinite(panel.low) and math.isfinite(panel.high):
        left, right = panel.x.at(panel.low), panel.x.at(panel.high)
        sides = {"x": _percent(left), "width": _percent(max(right - left, 0))}
        parts.append(el("rect", **sides, y="0", height="100%", class_="interval"))
    marks = panel.marks
    nearest = min(marks.values())
    for name, value in marks.items():
        end = value == nearest if len(marks) > 1 else at > 0.6
        look = "target" if len(marks) > 1 and name != "chosen" else "chosen"
        parts.append(el("line", **_upright(panel, value, "0"), class_=look))
        place = {"dx": -5 if end else 5, "dy": -4, "text_anchor": "end" if end else "start"}
        label = f"{name} {number(value)}"
        parts.append(el("text", label, x=_percent(panel.x.at(value)), y="0", **place, class_=look))
    return parts


def _lines(panel: Panel) -> list[Html]:
    parts = []
    for curve in panel.curves:
        bounded = [p for p in curve.points if math.isfinite(p.low) and math.isfinite(p.high)]
        if len(bounded) > 1:
            upper = [_pair(panel, p.x, p.high) for p in bounded]
            lower = [_pair(panel, p.x, p.low) for p in reversed(bounded)]
            outline = " ".join([*upper, *lower])
            parts.append(el("polygon", points=outline, class_=f"band s{curve.style}"))
        elif bounded:
            (p,) = bounded
            ends = f"{_pair(panel, p.x, p.low)} {_pair(panel, p.x, p.high)}"
            parts.append(el("polyline", points=ends, class_=f"curve s{curve.style}"))
        path = " ".join(_pair(panel, p.x, p.y) for p in curve.points)
        faint = " faint" if curve.faint else ""
        parts.append(el("polyline", points=path, class_=f"curve s{curve.style}{faint}"))
    return parts


def _marked(curve: Curve) -> Sequence[Point]:
    return () if curve.faint else curve.points


def _marker(panel: Panel, curve: Curve, point: Point) -> Html:
    value = f"{curve.label} {number(point.y)}{between(point.low, point.high)}"
    return el(
        "svg",
        el("title", f"{value} at distance {number(point.x)}: {point.label}"),
        el("circle", r=11, class_="reach"),
        el("path", d=MARKERS[curve.style]),
        x=_x(panel, point.x),
        y=_y(panel, point.y),
        class_=f"point s{curve.style}",
        data_run=point.run,
    )


def _legend(panel: Panel) -> Html:
    styles = dict.fromkeys((curve.label, curve.style) for curve in panel.curves if not curve.faint)
    return el("ul", *(_entry(*entry) for entry in styles), class_="legend")


def _entry(label: str, style: int) -> Html:
    swatch = el(
        "svg",
        el("line", x1=1, x2=33, y1=7, y2=7, class_=f"curve s{style}"),
        el("path", d=MARKERS[style], transform="translate(17 7)", class_=f"point s{style}"),
        width=34,
        height=14,
        aria_hidden="true",
    )
    return el("li", swatch, " ", label)


def _told(panel: Panel) -> str:
    """Say what is seen, for those who can't."""
    parts = []
    for curve in panel.curves:
        if not curve.faint:
            first, last = curve.points[0], curve.points[-1]
            parts.append(
                f"{curve.label} goes from {number(first.y)} at distance {number(first.x)} "
                f"to {number(last.y)} at {number(last.x)}"
            )
    told = [f"{name} {number(value)}" for name, value in panel.marks.items()]
    chosen = f" Marked: {', '.join(told)}." if told else ""
    return f"{panel.title}: {'; '.join(parts)}.{chosen} All values are in the table of runs."


def _upright(panel: Panel, value: float, top: str) -> dict[str, str]:
    x = _x(panel, value)
    return {"x1": x, "x2": x, "y1": top, "y2": "100%"}


def _x(panel: Panel, value: float) -> str:
    return _percent(panel.x.at(value))


def _y(panel: Panel, value: float) -> str:
    return _percent(1 - panel.y.at(value))


def _pair(panel: Panel, x: float, y: float) -> str:
    return f"{100 * panel.x.at(x):.2f},{100 - 100 * panel.y.at(y):.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
