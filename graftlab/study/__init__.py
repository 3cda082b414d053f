"""A study: runs that differ in method, task, seed or setting alone, and the table that compares them."""

from graftlab.study.comparison import compare, reported
from graftlab.study.design import Plan, Planned, read
from graftlab.study.labels import Cell
from graftlab.study.queue import carry_out, place, writing
from graftlab.study.records import Comparison, Done, Row, Summary
from graftlab.study.section import Choose, Study
from graftlab.study.tables import as_json, show, write

__all__ = [
    "Cell", "Choose", "Comparison", "Done", "Plan", "Planned", "Row", "Study", "Summary",
    "as_json", "carry_out", "compare", "place", "read", "reported", "show", "write", "writing",
]  # fmt: skip
