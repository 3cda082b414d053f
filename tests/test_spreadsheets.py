"""Text of data and models in a table is text to a spreadsheet, and no formula."""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from graftlab import analyses
from graftlab.contracts.plot import ControlRow
from graftlab.inference.controls import Beside

FORMULA = "=1+1"


class Cells(NamedTuple):
    """A row of an analysis."""

    weight: str
    value: float
    rank: int | None


def test_names_of_weights_run_no_formula(tmp_path: Path) -> None:
    path, _ = analyses.write([Cells(FORMULA, -0.5, None)], Cells, tmp_path, "table")
    assert path.read_bytes() == b"weight,value,rank\n'=1+1,-0.5,\n"


def test_types_of_tasks_run_no_formula() -> None:
    row: Any = {**dict.fromkeys(get_type_hints(ControlRow)), "task_type": FORMULA, "value": -0.5}
    [read] = csv.DictReader(io.StringIO(Beside("test", [row], Path(), ()).as_csv()))
    assert list(read) == list(get_type_hints(ControlRow))
    assert (read["task_type"], read["value"]) == (f"'{FORMULA}", "-0.5")
