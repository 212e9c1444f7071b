"""The site: the pages of the checkout where they lie, and references made from the code.

The source folder is the top of the checkout, so that a link of a page leads to the same place here
and on a forge. `make docs` builds it.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(DOCS / "site")]

import made_pages  # noqa: E402

from support.pages import PAGES  # noqa: E402
from taqstore import __version__  # noqa: E402

project = "taqstore"
author = "The taqstore developers"
release = version = __version__
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "help_pages",
]
made_pages.write_pages(ROOT)
source_suffix = {".rst": "restructuredtext", ".md": "markdown", ".myst": "markdown"}
root_doc = "docs/index"
CARD = "pipelines/models/reference/README.md"  # made by its own code
include_patterns = ["docs/index.rst", made_pages.PLACE + "/**", CARD, *PAGES]
exclude_patterns = [".*", "**/_build", "**/node_modules"]

smartquotes = False  # two hyphens begin an option
myst_heading_anchors = 4
highlight_language = "console"  # a block without a language is a session, or text

default_role = "code"  # docstrings put names between single backticks
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False  # types stand in the signature
napoleon_use_ivar = True  # attributes of a class are members of their own, too
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
autodoc_preserve_defaults = True
autodoc_type_aliases = made_pages.ALIASES
python_maximum_signature_line_length = 80
nitpick_ignore_regex = made_pages.ELSEWHERE

html_theme = "furo"
html_title = f"taqstore {version}"
html_extra_path = ["site/index.html"]
html_static_path = ["site/taqstore.css"]
html_css_files = ["taqstore.css"]
html_copy_source = False
html_show_sphinx = False
