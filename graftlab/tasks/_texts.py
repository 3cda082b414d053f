"""Texts of rows: taken from a column, cleaned, and compared."""

import html
import re
from collections.abc import Mapping, Sequence

from graftlab.data import nested, splits
from graftlab.data.labels import Unusable
from graftlab.data.textfile import is_unicode

MARKUP = re.compile(r"<!--.*?-->|</?[a-zA-Z][^<>]*>", re.S)  # not `a < b`, and not `<3`


def text_of(row: Mapping[str, object], column: str) -> str:
    """Return a column's text. `Raises:` Unusable: it is none, or no valid one."""
    value = row[column]
    if not isinstance(value, str):
        within = nested.hint(column, row).rstrip(".")
        raise Unusable(f"column {column!r} is {value!r:.60}, not text{within and f'.{within}'}")
    if "\0" in value:
        raise Unusable(f"a NUL character stands in column {column!r}")
    if not value.isascii() and not is_unicode(value):
        raise Unusable(f"column {column!r} is not valid Unicode (a lone surrogate)")
    return value


def cleaned(text: str) -> str:
    """Return the text without HTML, and with single spaces."""
    return " ".join(html.unescape(MARKUP.sub(" ", text)).split())


def same_text(texts: Sequence[str]) -> bytes:
    """Return what two inputs share if their texts are equal but for case and white space."""
    return splits.digest(*("".join(text.split()).casefold() for text in texts))
