"""The web site: README, docs, the rendered solutions and the reference, by `make site`.

The sources' folder is the checkout, so that a link works here as it does in the repository. Notebooks are
shown as they are stored and not run. A link that leads nowhere ends the build.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nucleus_course  # noqa: E402

ADDRESS = re.search(
    r'^repository = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M
)[1]

project = "nucleus_course"
author = copyright = "The nucleus_course authors"
version = release = nucleus_course.__version__
language = "en"
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "data/README.md",
    "data/weights/*/README.md",
    "notebooks/solutions/*.ipynb",
    "notebooks/gpu/*.ipynb",
]
exclude_patterns = [".venv", "out", "build", "runs", "**/.ipynb_checkpoints"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type", "misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autosummary_generate = False
napoleon_google_docstring = True

html_theme = "furo"
html_title = "nucleus_course"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_extra_path = ["site/redirect"]
html_theme_options = {"source_repository": ADDRESS, "source_branch": "main"} if ADDRESS else {}
html_show_sourcelink = False
html_copy_source = False

LEARNERS = re.compile(r"\]\((?:\.\./)*notebooks/(?=\d\d_)")
WITHOUT_ANSWERS = re.compile(r"\[([^][\n]*)\]\((\.\./\d\d_\w+\.ipynb)\)")


def to_the_solutions(app, document, source):
    """A link to a learner's notebook, which has nothing to show, opens its solution; in that it is a download."""
    text = source[0]
    if document.startswith("notebooks/"):
        source[0] = WITHOUT_ANSWERS.sub(r"{download}`\1 <\2>`", text)
    else:
        up = "../" * document.count("/")
        text = LEARNERS.sub(f"]({up}notebooks/solutions/", text)
        source[0] = text.replace("](notebooks/solutions)", "](docs/index.md)")


def setup(app):
    app.connect("source-read", to_the_solutions)
