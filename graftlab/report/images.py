"""Figures that others have drawn, as pictures of a page: no script runs in them, and only so many fit."""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from graftlab.contracts import Plot

MOST_BYTES = 3_000_000
"""Of all pictures of a page together, as they stand in it: a page stays below 5 MB."""
KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


class Picture(NamedTuple):
    """A figure as a file has it."""

    kind: str
    """`image/svg+xml` or `image/png`."""
    content: bytes
    caption: str


def drawn(svg: str, caption: str) -> Picture:
    """Return a figure that was drawn just now."""
    return Picture(KINDS[".svg"], svg.encode(), caption)


def caption(plot: Plot) -> str:
    """Return what a plot's own docstring says."""
    return f"{plot.TITLE}. {' '.join((plot.__doc__ or '').split())}"


def found(folder: Path, deep: bool = True) -> list[Picture]:
    """Return the figures in a folder, and below it unless it is not to be looked at in depth; of one that is
    there as SVG and as PNG, the smaller."""
    paths: dict[Path, list[Path]] = {}
    below = folder.rglob("*") if deep else folder.glob("*")
    for path in sorted(below) if folder.is_dir() else ():
        if path.suffix in KINDS and path.is_file() and not path.is_symlink():
            paths.setdefault(path.with_suffix(""), []).append(path)
    chosen = [min(same, key=lambda path: path.stat().st_size) for same in paths.values()]
    return [
        Picture(
            KINDS[path.suffix],
            path.read_bytes(),
            path.relative_to(folder).with_suffix("").as_posix(),
        )
        for path in chosen
        if path.stat().st_size < MOST_BYTES
    ]


def html(pictures: Iterable[Picture]) -> list[Markup]:
    """Return pictures for a page, as many as fit, and a note of those that do not."""
    shown: list[Markup] = []
    left, spent = list[str](), 0
    for one in pictures:
        content = base64.b64encode(one.content).decode()
        if spent + len(content) > MOST_BYTES:
            left.append(one.caption)
            continue
        spent += len(content)
        shown.append(
            Markup(
                '<figure><img alt="{}" src="data:{};base64,{}"><figcaption>{}</figcaption></figure>'
            ).format(one.caption, one.kind, Markup(content), one.caption)
        )
    return shown + _left(left)


def _left(names: Sequence[str]) -> list[Markup]:
    if not names:
        return []
    return [
        Markup('<p class="note">Too large for this page, in the folder: {}.</p>').format(
            ", ".join(names)
        )
    ]
