"""A search for settings: a space over the fields of a run file, trials that train, and the winner."""

from graftlab.search.design import Plan, Search, read
from graftlab.search.trials import Found, carry_out, place
from graftlab.search.winner import confirm, write

__all__ = ["Found", "Plan", "Search", "carry_out", "confirm", "place", "read", "write"]
