r"""The final answer in a text that reasons, and whether two answers are equal.

What marks an answer is looked for in this order: `#### n` (GSM8K), "The answer is" (MetaMath), `\boxed{}`
(MATH), and last of all the last number. Which rule found it is part of what is returned: an answer that
only the last rule finds may be any number of the text.

Numbers are compared as exact fractions. Signs, groups of thousands, decimals, a/b and \frac{a}{b} are
read; $ and % are dropped, as units are (50% is 50: GSM8K's answers are bare numbers). A division by zero
is no number.
"""

import re
from fractions import Fraction
from typing import NamedTuple

HASHES, PHRASE, BOXED, LAST_NUMBER = "####", "the answer is", "boxed", "last number"
RULES = (HASHES, PHRASE, BOXED, LAST_NUMBER)
NONE = "none"
"""Stands for the rule where none found an answer."""
TOLERANCE = Fraction(1, 10**6)
"""Of numbers of which one was written as a decimal, and may have been rounded."""
LONGEST = 1000
"""Digits of the longest number that is read: a model that repeats itself writes longer ones."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)"
# A sign counts at a number, where nothing stands before it that it could subtract from: `12-5` and `12 - 5`
# hold 12 and 5.
_NUMBER = re.compile(
    rf"""(?P<sign>(?<![\w)}}])[-+\u2212])?
    \\?\$?
    (?:\\[dt]?frac\{{\s*(?P<over>[-\u2212]?{_DIGITS})\s*\}}\s*\{{\s*(?P<under>{_DIGITS})\s*\}}
    |(?P<whole>{_DIGITS}(?:\.\d+)?|\.\d+)(?:\s*/\s*(?P<divisor>{_DIGITS}(?:\.\d+)?))?)""",
    re.VERBOSE,
)
_PHRASE = re.compile(r"the (?:final )?answer is\s*:?", re.IGNORECASE)


class Number(NamedTuple):
    """An exact number."""

    value: Fraction
    decimal: bool
    """Written with a decimal point."""


class Found(NamedTuple):
    """An answer as it stands in the text."""

    text: str
    rule: str
    """Which of `RULES` found it."""


def number(text: str) -> tuple[Number, str] | None:
    """Return the number that a text states as its answer, and the rule that found it."""
    marked = text.partition(HASHES)[2].partition("\n")[0]
    if (first := _first(marked)) is not None:
        return first, HASHES
    if phrases := list(_PHRASE.finditer(text)):
        said = text[phrases[-1].end() :].strip().partition("\n")[0]
        if (first := _first(said)) is not None:
            return first, PHRASE
    if (inside := boxed(text)) is not None and (first := _first(inside)) is not None:
        return first, BOXED
    for match in reversed(list(_NUMBER.finditer(text))):
        if (last := _value(match)) is not None:
            return last, LAST_NUMBER
    return None


def expression(text: str) -> Found | None:
    """Return the expression that a text states as its answer, as MATH asks for, and the rule.

    After "The answer is" it goes up to the end of the sentence or line, or is what is boxed there.
    """
    if HASHES in text and (said := _sentence(text.partition(HASHES)[2])):
        return Found(said, HASHES)
    if phrases := list(_PHRASE.finditer(text)):
        rest = text[phrases[-1].end() :]
        said = _sentence(rest)
        inside = boxed(said)
        if said:
            return Found(said if inside is None else inside, PHRASE)
    if (inside := boxed(text)) is not None:
        return Found(inside, BOXED)
    matches = list(_NUMBER.finditer(text))
    return Found(matches[-1].group(), LAST_NUMBER) if matches else None


def gold_expression(text: str) -> str:
    r"""Return MATH's own answer: what the solution boxes, or the whole text where it boxes nothing."""
    inside = boxed(text)
    return text.strip() if inside is None else inside


def boxed(text: str) -> str | None:
    r"""Return the content of the last \boxed{...} or \fbox{...}, or of `\boxed x`; None without one."""
    place = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if place < 0:
        return None
    rest = text[place:].removeprefix("\\boxed").removeprefix("\\fbox")
    if not rest.startswith("{"):
        return re.split(r"[\s$]", rest.lstrip(), maxsplit=1)[0] if rest[:1] == " " else None
    depth = 0
    for position, letter in enumerate(rest):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return rest[1:position].strip()
    return None  # never closed: the text was cut


def rational(expression: str) -> Number | None:
    r"""Return the number that an expression is from end to end, but for $, % and a unit in \text."""
    if re.search(r",\s", expression):
        return None  # a list: without its spaces it would read as groups of thousands
    plain = expression.replace("\\!", "").replace("{,}", ",")
    match = _NUMBER.fullmatch(normalised(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)))
    if match is None:
        return None
    found = _value(match)
    written = re.search(r"\d?\.\d", expression) is not None  # `normalised` makes 0.5 a fraction
    return found and Number(found.value, written)


def equal(one: Number | None, other: Number | None) -> bool:
    """Say whether two numbers are equal: exactly, or within `TOLERANCE` where one is a decimal."""
    if one is None or other is None:
        return False
    allowed = TOLERANCE if one.decimal or other.decimal else 0
    return abs(one.value - other.value) <= allowed


def normalised(expression: str) -> str:
    r"""Return a LaTeX answer in the one spelling that MATH's answers are compared in.

    Hendrycks et al., Measuring Mathematical Problem Solving With the MATH Dataset, 2021, appendix: spaces,
    \left, \right, degrees, dollars, percents and units go; fractions and roots get their braces.
    """
    text = re.sub(r"\n|\\!", "", expression.strip()).replace("\\\\", "\\")
    for pair in (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):  # of formulas
        if len(text) > len("".join(pair)) and text.startswith(pair[0]) and text.endswith(pair[1]):
            text = text[len(pair[0]) : -len(pair[1])].strip()
    text = re.sub(r"\\[td]frac", r"\\frac", text)
    text = re.sub(r"\\left|\\right|\^\{\\circ\}|\^\\circ|\\?\$|\\?%", "", text)
    if text.count("\\text{ ") == 1:
        text = text.partition("\\text{ ")[0]  # a unit
    text = re.sub(r"(^|[ {])\.", r"\g<1>0.", text)
    name, equals, value = text.partition("=")
    if equals and "=" not in value and len(name) <= 2 + name.endswith(" "):
        text = value
    text = re.sub(r"\\sqrt\s*(?![\s{])(\S)", r"\\sqrt{\1}", text).replace(" ", "")
    text = _braced(text)
    if text == "0.5":
        return "\\frac{1}{2}"
    whole = re.fullmatch(r"(-?\d+)/(-?\d+)", text)
    return f"\\frac{{{whole[1]}}}{{{whole[2]}}}" if whole else text


def _braced(text: str) -> str:
    r"""Give \frac12 and \frac1{72} the braces that they may be written without."""
    text = re.sub(r"\\frac(?!\{)(.)(?!\{)(.)", r"\\frac{\1}{\2}", text)
    return re.sub(r"\\frac(?!\{)(.)(?=\{)", r"\\frac{\1}", text)


def _sentence(text: str) -> str:
    """Return a text up to the end of its first sentence or line, without the full stop."""
    said = (
        re.split(r"\.\s|\n", text.strip(), maxsplit=1)[0].strip(" *").removesuffix(".").strip(" *")
    )
    return said if re.search(r"\w", said) else ""


def _first(text: str) -> Number | None:
    """Return the first number of a text."""
    match = _NUMBER.search(text)
    return _value(match) if match else None


def _value(match: "re.Match[str]") -> Number | None:
    if len(match.group()) > LONGEST:
        return None
    parts = {name: (part or "").replace(",", "") for name, part in match.groupdict().items()}
    over = Fraction((parts["over"] or parts["whole"]).replace("\u2212", "-"))
    under = Fraction(parts["under"] or parts["divisor"] or 1)
    if not under:
        return None
    sign = -1 if parts["sign"].strip() in ("-", "\u2212") else 1
    return Number(sign * over / under, "." in match.group())
