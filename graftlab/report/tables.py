"""A table once, and as HTML, Markdown, LaTeX (booktabs) and CSV: the same cells, escaped for each."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from graftlab.rundir import spreadsheet

NOTHING = "-"
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "\u2013": "--", "≤": r"$\leq$", "→": r"$\to$",
    "`": r"\textasciigrave{}", "'": r"\textquotesingle{}", '"': r"\textquotedbl{}",
}  # fmt: skip
STEERS = re.compile(r"[\x00-\x1f\x7f]+")
MARKUP = re.compile(r"([\\`*_\[\]<>|#~&!])")
"""What Markdown or the HTML in it would take for more than itself."""


class Cell(NamedTuple):
    """What stands in one place of a table."""

    text: str = ""
    value: float | None = None
    """The number that it is sorted by and that a CSV has, where it is one."""
    more: Mapping[str, float | str | None] = {}
    """Further columns of a CSV: what the text holds beside its value."""
    mark: str = ""
    """A class of the page's style: `better`, `worse`, `chosen`, `edge`, `hole`."""
    drawing: Markup = Markup()
    """What a page shows below the text."""
    tip: str = ""


class Table(NamedTuple):
    """Rows of cells below names."""

    name: str
    """Of its file."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: frozenset[str] = frozenset()
    """Columns that stand to the right."""
    sortable: bool = True


def cell(value: object, digits: int = 4) -> Cell:
    """Return a value as a cell; of None an empty one."""
    if value is None:
        return Cell()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value))
    text = f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"
    return Cell(text, float(value))


def headed(keys: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """Return each key's column: its last part, or all of it where another column is called that."""
    last = {key: key.rpartition(".")[2] for key in keys}
    times = Counter(last.values())
    return {
        key: key if short in taken or times[short] > 1 else short for key, short in last.items()
    }


ROOMY = 9
"""Columns that stand on a desktop's screen in the usual size; more are set closer."""


def html(table: Table) -> Markup:
    """Return a table for a page: on a phone each row is a card, in print it is whole."""
    head = Markup("").join(
        Markup('<th class="{}"{}>{}</th>').format(
            "n" if name in table.numbers else "",
            Markup(' data-sort tabindex="0" role="columnheader"')
            if table.sortable and name
            else "",
            name,
        )
        for name in table.columns
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>\n").format(
            Markup("").join(
                _data(one, name, name in table.numbers)
                for one, name in zip(row, table.columns, strict=True)
            )
        )
        for row in table.rows
    )
    return Markup(
        '<div class="scroll"><table class="{}" id="table-{}"><caption>{}</caption>\n'
        "<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody></table></div>"
    ).format(
        "cards dense" if len(table.columns) > ROOMY else "cards",
        table.name,
        table.title,
        head,
        body,
    )


def _data(one: Cell, name: str, number: bool) -> Markup:
    kind = " ".join(filter(None, ("n" if number else "", one.mark)))
    return Markup('<td{}{} data-label="{}"{}>{}{}</td>').format(
        Markup(' class="{}"').format(kind) if kind else "",
        Markup(' data-value="{}"').format(repr(one.value)) if one.value is not None else "",
        name,
        Markup(' data-tip="{}" tabindex="0"').format(one.tip) if one.tip else "",
        one.text,
        one.drawing,
    )


def markdown(table: Table) -> str:
    """Return a table as Markdown, under its title."""
    lines = [
        [plain(name) for name in table.columns],
        ["---:" if name in table.numbers else "---" for name in table.columns],
        *([plain(one.text) for one in row] for row in table.rows),
    ]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"**{plain(table.title)}**\n\n{text}\n"


def plain(text: object) -> str:
    """Return text of one line that is no Markdown."""
    return MARKUP.sub(r"\\\1", " ".join(STEERS.sub(" ", str(text)).split()))


def latex(table: Table) -> str:
    """Return a table as LaTeX that needs booktabs and nothing else."""
    head = " & ".join(tex(name) for name in table.columns)
    rows = [" & ".join(tex(one.text) for one in row) for row in table.rows]
    turned = "".join("r" if name in table.numbers else "l" for name in table.columns)
    lines = [
        r"\begin{table}", r"  \centering", rf"  \caption{{{tex(table.title)}}}",
        rf"  \begin{{tabular}}{{{turned}}}", r"    \toprule", rf"    {head} \\", r"    \midrule",
        *(rf"    {row} \\" for row in rows), r"    \bottomrule", r"  \end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def tex(text: object) -> str:
    """Return text of one line that LaTeX prints as it is."""
    return "".join(
        LATEX.get(letter, letter) for letter in " ".join(STEERS.sub(" ", str(text)).split())
    )


def csv(table: Table) -> str:
    """Return a table as CSV: numbers whole, and what a cell holds beside its value in columns of its own."""
    lines: list[dict[str, object]] = []
    for row in table.rows:
        line: dict[str, object] = {}
        for name, one in zip(table.columns, row, strict=True):
            line[name] = _whole(one)
            line |= {f"{name} {key}": value for key, value in one.more.items()}
        lines.append(line)
    return spreadsheet.text(lines, () if lines else table.columns)


def _whole(one: Cell) -> str | float | int:
    """Return a cell's number, or its text; of what is missing nothing, since a dash begins a formula."""
    if one.value is None:
        return "" if one.text == NOTHING else one.text
    return int(one.value) if one.value.is_integer() else one.value


def stacked(tables: Sequence[Table], name: str, title: str) -> Table:
    """Return tables as one, with the columns of all; where a table lacks one its cells are empty."""
    columns = tuple(dict.fromkeys(column for table in tables for column in table.columns))
    rows = [
        tuple(dict(zip(table.columns, row, strict=True)).get(column, Cell()) for column in columns)
        for table in tables
        for row in table.rows
    ]
    numbers = frozenset[str]().union(*(table.numbers for table in tables))
    return Table(name, title, columns, tuple(rows), numbers)


def texts(tables: Sequence[Table], form: str) -> str:
    """Return tables in a form: `markdown`, `latex` or `csv`, one after the other."""
    write = {"markdown": markdown, "latex": latex, "csv": csv}[form]
    front = "% \\usepackage{booktabs}\n\n" if form == "latex" else ""
    return front + "\n".join(write(table) for table in tables)
