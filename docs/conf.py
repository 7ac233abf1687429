"""The site's settings for Sphinx: make docs.

The site is built from the repository's root, so that a link among its files is the same link here
and where the files are read as they are.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from pti_pipeline import __version__  # noqa: E402 (found by the line above)

project = "pti-pipeline"
copyright = "the authors of pti-pipeline, Apache-2.0"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "making.contents",
    "making.commands",
    "making.modules",
    "making.mathml",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "pti_pipeline/world/weights/README.md",
]
exclude_patterns = [".*", "build", "generated", "mlruns", "mutants", "**/__pycache__"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
add_module_names = False
autodoc_typehints = "none"  # types stand in the docstrings, with shapes and units
napoleon_google_docstring = False
napoleon_use_param = napoleon_use_rtype = False  # types are words here, no names to link
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "pti-pipeline"
html_logo = html_favicon = "making/static/mochi.png"
html_static_path = ["making/static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "to-contents.html"}
templates_path = ["making/templates"]
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
