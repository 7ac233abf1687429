"""Docstrings of the modules that the page of the Python API links to, at its end."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

PAGE = "docs/reference/api"
LINK = re.compile(r"\(\.\./\.\./(pti_pipeline[\w/]*)\.py\)")

SECTION = """

(module-{name})=
## {name}

```{{eval-rst}}
.. automodule:: {name}
   :members:
```
"""


def add_modules(app: Sphinx, page: str, source: list[str]) -> None:
    """Turn links to modules into links to their sections, and add these."""
    if page == PAGE:
        names = [path.replace("/", ".") for path in LINK.findall(source[0])]
        text = LINK.sub(lambda found: f"(#module-{found[1].replace('/', '.')})", source[0])
        source[0] = text + "".join(SECTION.format(name=name) for name in names)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("source-read", add_modules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
