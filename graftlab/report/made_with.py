"""The end of every page: how to repeat it, the settings that runs share and their own, where they ran."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from graftlab.report import page, repeat
from graftlab.report.page import Section
from graftlab.report.repeat import Made

LONGEST = 200_000  # characters of a file on the page


def sections(made: Made, file: Path, command: str) -> list[Section]:
    """Return how to repeat runs, their settings and their environment.

    `file` is what they were made from, `command` what carries it out when it is saved under its name.
    """
    return [
        Section("How to repeat it", _repeat(made, file, command)),
        Section("Settings", _settings(made)),
        Section("Environment", _environment(made)),
    ]


def _repeat(made: Made, file: Path, command: str) -> list[Markup]:
    text = repeat.file_text(file)
    lines = [line for line in (repeat.installation(made.machine), command if text else "") if line]
    parts = []
    if text and len(text) <= LONGEST:
        parts.append(page.prose(f"Save this as {file.name}:"))
        parts.append(page.details(file.name, page.block(text)))
    elif not text:
        said = f"{file.name} is not in the folder: an older version made it. The settings below are all."
        parts.append(page.prose(said, "warn"))
    if lines:
        parts.append(page.block("\n".join(lines)))
    if commit := repeat.commit(made.machine):
        said = f"Made with a clone of graftlab at commit {commit}: . stands for such a one."
        parts.append(page.prose(said))
    parts.append(
        page.prose(
            "The same data and weights have these fingerprints (sha256); on the same machine with the same "
            "versions and threads the same bytes come out, elsewhere the same up to rounding."
        )
    )
    parts.append(page.facts({key: _values(values) for key, values in made.data.items()}))
    if made.other_code:
        said = f"{len(made.other_code)} runs were made with another version of graftlab than the others:"
        parts += [page.prose(said, "warn"), page.facts(made.other_code)]
    return parts


def _settings(made: Made) -> list[Markup]:
    parts = [
        page.details(f"What all runs share ({len(made.shared)} keys)", page.facts(made.shared))
    ]
    if any(made.own.values()):
        own = {
            name: "; ".join(f"{key}: {value}" for key, value in values.items())
            for name, values in made.own.items()
        }
        parts.append(page.details("What each run has of its own", page.facts(own)))
    if made.unlisted:
        parts.append(
            page.prose(
                f"{made.unlisted} more runs are not listed here; runs.csv has them all.", "warn"
            )
        )
    return parts


def _environment(made: Made) -> list[Markup]:
    found = {key: _values(values) for key, values in made.machine.items()}
    return [page.details("Packages, code and machine", page.facts(found))] if found else []


def _values(values: Sequence[tuple[str, int]]) -> str:
    """Return the values that a fact has had; where there are several, in how many runs each."""
    if len(values) == 1:
        return values[0][0]
    return "; ".join(f"{value} ({count} runs)" for value, count in values)
