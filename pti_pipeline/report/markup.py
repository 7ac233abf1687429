"""HTML that escapes by construction: text becomes markup only by passing through :func:`el`."""

from __future__ import annotations

from html import escape

VOID = ("meta", "img", "input", "br")
"""Elements without a closing tag."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def el(name: str, /, *content: str, **attributes: str | float | None) -> Html:
    """Make an element; content that is no :class:`Html` is escaped, as are attributes.

    Parameters
    ----------
    name : str
    *content : str
    **attributes
        ``class_`` gives ``class``, ``aria_label`` gives ``aria-label``; None is left out.

    Examples
    --------
    >>> el("p", "<mochi> ", el("b", "&"), class_="lead")
    '<p class="lead">&lt;mochi&gt; <b>&amp;</b></p>'
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_shown(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    opened = f"<{name}{pairs}>"
    return Html(opened if name in VOID else f"{opened}{join(*content)}</{name}>")


def join(*content: str) -> Html:
    """Put parts side by side, escaping those that are no :class:`Html`."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in content))


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
