"""A study, a run or a search as a page that needs nothing beside itself, and as tables for papers."""

from graftlab.report.documents import FORMS, Kind, as_text, html, kind, write
from graftlab.report.page import policy

__all__ = ["FORMS", "Kind", "as_text", "html", "kind", "policy", "write"]
