"""A run file drafted from data, or from the file of another program."""

from graftlab.drafts.draft import Draft, together
from graftlab.drafts.sources import read
from graftlab.drafts.text import written

__all__ = ["Draft", "read", "together", "written"]
