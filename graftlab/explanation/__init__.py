"""What training did to weights: what can be analysed, tables, figures, and what of it stands out."""

from graftlab.explanation.page import write
from graftlab.explanation.tables import Table, asked, carry_out, check
from graftlab.explanation.targets import Model, Options, find

__all__ = ["Model", "Options", "Table", "asked", "carry_out", "check", "find", "write"]
