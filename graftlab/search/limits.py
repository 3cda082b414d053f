"""Limits of a search that are known before a trial trains."""

from graftlab import runfile
from graftlab.config import Document
from graftlab.errors import GraftlabError
from graftlab.search.design import Search


def too_large(search: Search, document: Document) -> str | None:
    """Return which limit a trial's run would break, or why that is not known; None where it breaks none."""
    limits = search.at_most
    if not limits:
        return None
    from graftlab.planning import forecast

    try:
        made = forecast.plan(runfile.resolve(document))
    except GraftlabError as error:
        return str(error)
    known = {"trainable": made["parameters"]["trainable"], "memory": made["memory"]["peak"]}
    broken = [name for name, most in limits.items() if known[name] > most]
    return f"{broken[0]} would be {known[broken[0]]:g}" if broken else None
