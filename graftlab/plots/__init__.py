"""Figures: one file a plot, found by name; `data` computes what is drawn, and `draw` decides nothing."""

import io
import textwrap
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.contracts import Plot
from graftlab.rundir import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 300  # for print
LETTERS_AN_INCH = 11  # of a title, and room for a legend beside it
UNDATED = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def drawn(plot: Plot, source: object, what: str) -> "Figure | None":
    """Return the figure of a source with its title; None where there is nothing to draw."""
    data = plot.data(source)
    return None if data is None else titled(plot.draw(data), f"{plot.TITLE} ({what})")


def titled(figure: "Figure", text: str) -> "Figure":
    """Return the figure with a title, in which dollar signs are no formula, in as many lines as it takes and
    three at most."""
    room = int(figure.get_figwidth() * LETTERS_AN_INCH)
    shown = textwrap.fill(text, room, max_lines=3, placeholder=" …")
    figure.suptitle(shown, fontsize=11, parse_math=False)
    return figure


def _repeatable() -> AbstractContextManager[None]:
    """Return the settings of matplotlib under which the same figure is the same SVG."""
    import matplotlib

    return matplotlib.rc_context({"svg.hashsalt": "graftlab", "svg.fonttype": "path"})


def svg(figure: "Figure") -> str:
    """Return a figure as an SVG element for a page; the same bytes for the same figure."""
    stream = io.StringIO()
    with _repeatable():
        figure.savefig(stream, format="svg", metadata=UNDATED)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def write(figure: "Figure", folder: Path, name: str) -> Path:
    """Write a figure as NAME.png and NAME.svg, each whole or not at all, and return the PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with _repeatable():
        figure.draw_without_rendering()  # the layout, once for both
        figure.set_layout_engine("none")
        # `savefig` would draw each once more before it draws it, in case that moves something.
        figure.set_dpi(DOTS_PER_INCH)
        with files.new_file(folder / f"{name}.png") as partial:
            FigureCanvasAgg(figure).print_png(partial)
        with files.new_file(folder / f"{name}.svg") as partial:
            FigureCanvasSVG(figure).print_svg(partial, metadata=UNDATED)
    return folder / f"{name}.png"


def draw(plots: Mapping[str, Plot], source: object, what: str, folder: Path) -> list[Path]:
    """Draw each of the plots of one source into a folder, under its name, and return the PNGs.

    Where there is nothing to draw there is no figure, nor one of an earlier call.
    """
    written = []
    for name, plot in plots.items():
        called, figure = plot.NAME or name, drawn(plot, source, what)
        if figure is not None:
            written.append(write(figure, folder, called))
            continue
        for suffix in ("png", "svg"):
            (folder / f"{called}.{suffix}").unlink(missing_ok=True)
    return written
