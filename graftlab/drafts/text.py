"""A draft as the text of a run file, with its comments."""

import os
from collections.abc import Mapping
from pathlib import Path

from graftlab.config import dump
from graftlab.drafts.draft import Draft, Left
from graftlab.terminal import visible

ORDER = (
    "name",
    "backbone",
    "task",
    "method",
    "training",
    "tracking",
    "paths",
    "seed",
    "deterministic",
)
WIDEST = 300  # characters of a value that is repeated in a comment


def written(draft: Draft, target: Path) -> str:
    """Return the text of the run file that is to stand at `target`."""
    lines = [
        f"# A run file from {_line(f'{_shown(draft.origin, target)}: {draft.what}')}",
        "#",
        f"# graftlab check {_line(target.name)} says what is odd about it; every key: graftlab init template",
        "",
    ]
    for section in (name for name in ORDER if name in draft.values):
        lines += [*_section(section, draft, target), ""]
    if draft.left:
        lines += ["# Not carried over:", *map(_left, draft.left)]
    return "\n".join(lines).rstrip() + "\n"


def _section(section: str, draft: Draft, target: Path) -> list[str]:
    value = _plain(draft.values[section], target)
    lines = []
    if remark := draft.remarks.get(section):
        lines.append(f"# {_line(remark)}")
    for line in dump({section: value}).rstrip().splitlines():
        own = line.startswith("  ") and line[2:3] not in (" ", "-")
        key = line[2:].partition(":")[0] if own else ""
        remark = draft.remarks.get(f"{section}.{key}") if key else None
        lines.append(f"{line}  # {_line(remark)}" if remark else line)
    return lines


def _plain(value: object, target: Path) -> object:
    """Return a value as YAML holds it: paths as seen from the run file, where they lie near it."""
    if isinstance(value, Mapping):
        return {key: _plain(item, target) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, target) for item in value]
    return _shown(value, target) if isinstance(value, Path) else value


def _shown(path: Path, target: Path) -> str:
    whole, folder = path.absolute(), target.absolute().parent
    near = os.path.relpath(whole, folder)
    return str(whole) if near.startswith(f"..{os.sep}..") else near


def _left(left: Left) -> str:
    value = _line(str(left.value))
    shown = value if len(value) <= WIDEST else f"{value[:WIDEST]}..."
    return f"#   {_line(left.key)}: {shown}" + (f"    ({_line(left.why)})" if left.why else "")


def _line(text: str) -> str:
    """Return text as a comment can hold it: on one line, without what YAML refuses."""
    return visible(" ".join(text.split()))
