"""The pages as a site that needs no network: `make docs` writes it to build/site; a broken link stops it.

The source is the whole clone, so that README, changelog and docs/ link to each other as on a code host.
The order of the pages stands here and nowhere else; a page that is in no group is an error.
"""

import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
FIRST = "docs/index"
NAVIGATION = {
    "Begin": ("/docs/install", "/docs/first-hour", "Overview </README>", "한국어 </README.ko>"),
    "A run": (
        "/docs/run-files",
        "/docs/tasks",
        "/docs/generation",
        "/docs/backbones",
        "/docs/metrics",
        "/docs/hooks",
        "/docs/runs",
        "/docs/commands",
    ),
    "Methods": ("/docs/methods", "/docs/methods/*"),
    "Several runs, several tasks": (
        "/docs/studies",
        "/docs/studies/*",
        "/docs/search",
        "/docs/mixtures",
        "/docs/selection",
    ),
    "After a run": ("/docs/inference", "/docs/analysis", "/docs/merging", "/docs/sharing"),
    "Machines": (
        "/docs/plan",
        "/docs/several-processes",
        "/docs/cluster",
        "/docs/faults",
        "/docs/benchmarks",
    ),
    "Strangers' files": ("/docs/security",),
    "Python": ("/docs/python", "/docs/add-a-method", "/docs/add-a-part"),
    "About": (
        "/docs/coming-from",
        "/docs/architecture",
        "/docs/mutants",
        "/CONTRIBUTING",
        "/CHANGELOG",
    ),
}

project = "graftlab"
author = "the graftlab authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser"]
root_doc = FIRST
include_patterns = ["README*.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md"]
exclude_patterns = [".*", "build", "bench", "demo", "graftlab", "recipes", "runs", "tests"]
myst_heading_anchors = 4  # as a code host makes them, so that `runs.md#exactness` leads there
nitpicky = True
smartquotes = False  # `--json` in a sentence keeps its two hyphens
suppress_warnings = ["misc.highlighting_failure"]  # excerpts of JSON and logs are not whole

html_theme = "furo"
html_title = f"graftlab {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_permalinks_icon = "#"


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the groups below the first page's text, where its Markdown stays plain."""
    if name != FIRST:
        return
    for group, pages in NAVIGATION.items():
        listed = "\n".join(pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {group}\n\n{listed}\n```\n"


def lead_to_the_first_page(app: Sphinx, error: Exception | None) -> None:
    """Write the index.html that a browser or a server opens first."""
    if error is None and app.builder.format == "html":
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={FIRST}.html">\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
    app.connect("build-finished", lead_to_the_first_page)
