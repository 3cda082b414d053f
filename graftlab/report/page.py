"""One HTML file that needs nothing beside itself: it opens without a network, and reads without its script.

What may run is said in the page (Content-Security-Policy): one script and one style, by their hashes, and
pictures that stand in it. Every value is escaped; charts are SVG of this project, figures of others pictures.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from jinja2 import Template


class Section(NamedTuple):
    """A part of a page under a heading."""

    title: str
    parts: Sequence[Markup]
    tabs: Mapping[str, Sequence[Markup]] = {}
    """Parts of which a page with a script shows one at a time, by what their tabs say."""


class Page(NamedTuple):
    """What a page says."""

    title: str
    question: str
    answer: str
    sections: Sequence[Section]


def render(page: Page) -> str:
    """Return a page as HTML."""
    return _template().render(
        page=page, style=_asset("page.css"), script=_asset("page.js"), policy=policy()
    )


@functools.cache
def policy() -> str:
    """Return what a page may load and run: what stands in it."""
    script, style = (f"'sha256-{_hash(_asset(name))}'" for name in ("page.js", "page.css"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src data:; base-uri 'none'; "
        f"form-action 'none'"
    )


def prose(text: str, kind: str = "") -> Markup:
    """Return a paragraph; `kind` is a class of the page's style."""
    return (
        Markup('<p class="{}">{}</p>').format(kind, text)
        if kind
        else Markup("<p>{}</p>").format(text)
    )


def points(lines: Sequence[str], kind: str = "") -> Markup:
    """Return a list of sentences; nothing where there are none."""
    if not lines:
        return Markup("")
    items = Markup("").join(Markup("<li>{}</li>").format(line) for line in lines)
    return Markup('<ul class="{}">{}</ul>').format(kind, items)


def block(text: str) -> Markup:
    """Return text as it stands, such as commands or a file."""
    return Markup("<pre>{}</pre>").format(text.rstrip())


def details(summary: str, *parts: Markup) -> Markup:
    """Return what is folded away until it is asked for."""
    return Markup("<details><summary>{}</summary>{}</details>").format(
        summary, Markup("").join(parts)
    )


def side_by_side(charts: Sequence[Markup]) -> Markup:
    """Return charts beside each other where there is room, below each other on a phone."""
    return (
        Markup('<div class="plots">{}</div>').format(Markup("").join(charts))
        if charts
        else Markup("")
    )


def facts(values: Mapping[str, object]) -> Markup:
    """Return names with their values."""
    rows = Markup("").join(
        Markup("<tr><td><code>{}</code></td><td>{}</td></tr>").format(key, escape(value))
        for key, value in values.items()
    )
    return Markup('<table class="facts"><tbody>{}</tbody></table>').format(rows)


def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["whole"] = Markup
    return environment.from_string(_asset("page.html.j2"))


@functools.cache
def _asset(name: str) -> str:
    return resources.files("graftlab.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
