"""What training did to weights: what can be analysed, the tables of each analysis, and their figures."""

from graftlab.explanation.tables import Table, asked, carry_out, check
from graftlab.explanation.targets import Model, Options, find

__all__ = ["Model", "Options", "Table", "asked", "carry_out", "check", "find"]
