"""Colors and marks of figures, which the color-blind tell apart too."""

from __future__ import annotations

BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
"""One a curve, in turn: those of Okabe & Ito (2008)."""
MARKERS = ("o", "s", "^", "D", "v", "<", ">", "p", "h", "*")
"""One a curve, in turn."""
INK, PALE, RULE = "#2b2b33", "#8a8a94", "#d9d9e0"
"""Of text and lines that matter, of those that matter less, and of what lies behind."""
