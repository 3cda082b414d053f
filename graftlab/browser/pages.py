"""The pages: what is on each, rendered by the machine that has the runs. Every value is escaped."""

import functools
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from graftlab.browser import curves
from graftlab.browser.control import Resumed
from graftlab.browser.folder import Entry, Folder
from graftlab.errors import GraftlabError
from graftlab.rundir.run import Run
from graftlab.runs import difference, overview
from graftlab.terminal import shown

PER_PAGE = 100
LOG_LINES, LOG_BYTES = 40, 65_536
STATES = ("running", "waiting", "stopped", "failed", "finished")
COLUMNS = ("run", "status", "score", "method", "task", "backbone", "trained", "date", "seconds")


class Asked(NamedTuple):
    """What of a folder a page shows."""

    at: str = ""
    """A study in it; empty for the folder itself."""
    words: str = ""
    """All of them have to stand in a row."""
    state: str = ""
    where: str = ""
    """`key=value` of a column or of config.yaml, separated by spaces."""
    sort: str = ""
    page: int = 1

    def address(self, sort: str | None = None, page: int = 1) -> str:
        """Return the address of a page of the same, or of the same sorted otherwise."""
        asked = self._replace(sort=self.sort if sort is None else sort, page=page)
        given = {k: v for k, v in asked._asdict().items() if v != Asked._field_defaults[k]}
        return "/?" + urlencode(given) if given else "/"


def folder(runs: Folder, asked: Asked) -> str:
    """Return the table of a folder. `Raises:` ConfigError: a condition, a column or the place is unknown."""
    every = runs.entries(asked.at, asked.where.split(), asked.sort or "-date")
    words = asked.words.casefold().split()
    kept = [
        entry
        for entry in every
        if (not asked.state or entry.row.status == asked.state)
        and all(word in _text(entry) for word in words)
    ]
    pages = max(1, -(-len(kept) // PER_PAGE))
    page = min(max(1, asked.page), pages)
    shown_here = kept[(page - 1) * PER_PAGE : page * PER_PAGE]
    counts = {state: sum(entry.row.status == state for entry in every) for state in STATES}
    place = runs.find(asked.at)
    return _template("folder").render(
        asked=asked, entries=shown_here, found=len(kept), counts=counts, pages=pages, page=page,
        columns=COLUMNS, states=STATES, root=str(runs.root), is_study=overview.below(place) != place,
    )  # fmt: skip


def run(runs: Folder, at: str, resumed: Resumed) -> str:
    """Return the page of one run. `Raises:` ConfigError: it is not in the folder."""
    found = Run(runs.find(at))
    row = runs.look(found)
    result, damage = None, row.cause if found.finished and row.status == "failed" else None
    if found.finished and not damage:
        try:
            result = found.read_result()
            found.check(found.metrics.name)
        except GraftlabError as error:
            damage = str(error)
    return _template("run").render(
        at=at, row=row, result=result, damage=damage, starting=resumed.starting(found),
        complaint=resumed.complaint(found), charts=curves.charts({"": runs.metrics(found)}),
        config=_content(found.config), log=_last(found.log), path=str(found.path),
    )  # fmt: skip


def pair(runs: Folder, chosen: Sequence[str]) -> str:
    """Return two runs side by side. `Raises:` GraftlabError: one is not there, or damaged."""
    one, two = (Run(runs.find(at)) for at in chosen)
    apart = difference.between(one.path, two.path)
    lines = {at: runs.metrics(found) for at, found in zip(chosen, (one, two), strict=True)}
    return _template("pair").render(
        names=chosen,
        rows=[runs.look(one), runs.look(two)],
        apart=apart,
        charts=curves.charts(lines),
    )


def problem(said: str) -> str:
    """Return the page that says what could not be done."""
    return _template("problem").render(said=shown(said))


def asset(name: str) -> str:
    """Return the style or the script that all pages share."""
    if name == "style.css":
        return resources.files("graftlab.report").joinpath("page.css").read_text(encoding="utf-8")
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _text(entry: Entry) -> str:
    row = entry.row
    told = (
        row.run,
        row.status,
        row.method,
        row.task,
        row.backbone,
        row.metric,
        row.date,
        row.cause,
    )
    return " ".join(filter(None, told)).casefold()


def _content(path: Path) -> str:
    try:
        return shown(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def _last(path: Path) -> str:
    """Return the last lines of a log, without secrets."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return shown("\n".join(text.splitlines()[-LOG_LINES:]))


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "score": _score,
        "seconds": _seconds,
        "query": lambda at: urlencode({"at": at}),
    }
    return made


def _template(name: str) -> Any:
    return _environment().get_template(f"{name}.html.j2")


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {seconds} s"
        if minutes
        else f"{value:.1f} s"
    )
