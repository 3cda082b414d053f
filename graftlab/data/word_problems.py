"""Word problems made on the spot, solved in sentences with their sums: the texts that need no network.

Ten kinds of stories with other names, things and numbers in each. They are few, so a score says how well a
model has learned these kinds, and little of its maths.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

NAMES = (
    *("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo"),
    *("Iris", "Jonas", "Kim", "Leo", "Mina", "Noah", "Olga", "Paul"),
)
THINGS = (
    *("apples", "books", "marbles", "stamps", "cards", "pencils", "shells", "stickers"),
    *("cookies", "buttons", "balloons", "coins"),
)

MOST = 2500  # of the chairs there are 336 questions, of most others thousands


class Problem(NamedTuple):
    """A story, and the sentences that solve it; the number asked for is the last one in them."""

    question: str
    steps: tuple[str, ...]


class Drawn:
    """The names, things and numbers of one story."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random  # its numbers are the same in every Python
        first = self.number(0, len(NAMES) - 1)
        self.name = NAMES[first]
        self.other = NAMES[(first + self.number(1, len(NAMES) - 1)) % len(NAMES)]
        self.things = THINGS[self.number(0, len(THINGS) - 1)]

    def number(self, least: int, most: int) -> int:
        return least + int(self._random() * (most - least + 1))


def bought(it: Drawn) -> Problem:
    has, more = it.number(2, 20), it.number(2, 20)
    return Problem(
        f"{it.name} has {has} {it.things} and buys {more} more. How many {it.things} does {it.name} "
        f"have now?",
        (f"{it.name} has {has} + {more} = {has + more} {it.things}.",),
    )


def given(it: Drawn) -> Problem:
    gives, left = it.number(2, 10), it.number(2, 10)
    has = gives + left
    return Problem(
        f"{it.name} has {has} {it.things} and gives {gives} of them to {it.other}. How many {it.things} are "
        f"left?",
        (f"{has} - {gives} = {left} {it.things} are left.",),
    )


def boxes(it: Drawn) -> Problem:
    inside, number = it.number(2, 10), it.number(2, 10)
    return Problem(
        f"There are {inside} {it.things} in each box. How many {it.things} are in {number} boxes?",
        (f"There are {inside} * {number} = {inside * number} {it.things}.",),
    )


def shared(it: Drawn) -> Problem:
    friends, each = it.number(2, 10), it.number(2, 10)
    whole = friends * each
    return Problem(
        f"{it.name} shares {whole} {it.things} equally among {friends} friends. How many {it.things} does "
        f"each friend get?",
        (f"Each friend gets {whole} / {friends} = {each} {it.things}.",),
    )


def change(it: Drawn) -> Problem:
    number, price, back = it.number(2, 6), it.number(2, 6), it.number(2, 10)
    cost = number * price
    return Problem(
        f"{it.name} has {cost + back} dollars and buys {number} {it.things} for {price} dollars each. How "
        f"many dollars does {it.name} have left?",
        (
            f"The {it.things} cost {number} * {price} = {cost} dollars.",
            f"{it.name} has {cost + back} - {cost} = {back} dollars left.",
        ),
    )


def together(it: Drawn) -> Problem:
    has, more = it.number(2, 10), it.number(2, 10)
    return Problem(
        f"{it.name} has {has} {it.things}. {it.other} has {more} {it.things} more than {it.name}. How many "
        f"{it.things} do they have together?",
        (
            f"{it.other} has {has} + {more} = {has + more} {it.things}.",
            f"Together they have {has} + {has + more} = {2 * has + more} {it.things}.",
        ),
    )


def times(it: Drawn) -> Problem:
    has, factor = it.number(2, 10), it.number(2, 4)
    many = has * factor
    return Problem(
        f"{it.name} has {has} {it.things}. {it.other} has {factor} times as many. How many {it.things} do "
        f"they have together?",
        (
            f"{it.other} has {has} * {factor} = {many} {it.things}.",
            f"Together they have {has} + {many} = {has + many} {it.things}.",
        ),
    )


def pages(it: Drawn) -> Problem:
    daily, days, left = it.number(2, 10), it.number(2, 6), it.number(2, 10)
    read = daily * days
    return Problem(
        f"A book has {read + left} pages. {it.name} reads {daily} pages a day. How many pages are left after "
        f"{days} days?",
        (
            f"In {days} days {it.name} reads {daily} * {days} = {read} pages.",
            f"{read + left} - {read} = {left} pages are left.",
        ),
    )


def seats(it: Drawn) -> Problem:
    rows, each, taken = it.number(3, 8), it.number(3, 10), it.number(2, 8)
    whole = rows * each
    return Problem(
        f"A room has {rows} rows of {each} chairs. {taken} chairs are taken. How many chairs are free?",
        (
            f"There are {rows} * {each} = {whole} chairs.",
            f"{whole} - {taken} = {whole - taken} chairs are free.",
        ),
    )


def wages(it: Drawn) -> Problem:
    pay, hours, days = it.number(2, 10), it.number(2, 6), it.number(2, 4)
    daily = pay * hours
    return Problem(
        f"{it.name} earns {pay} dollars an hour and works {hours} hours a day. How many dollars does "
        f"{it.name} earn in {days} days?",
        (
            f"In a day {it.name} earns {pay} * {hours} = {daily} dollars.",
            f"In {days} days {it.name} earns {daily} * {days} = {daily * days} dollars.",
        ),
    )


STORIES: tuple[Callable[[Drawn], Problem], ...] = (
    *(bought, given, boxes, shared, change),
    *(together, times, pages, seats, wages),
)


def problems(seed: int) -> Iterator[Problem]:
    """Yield problems, each kind in turn, no question twice."""
    seen: set[str] = set()
    number = 0
    while True:
        problem = STORIES[number % len(STORIES)](Drawn((seed << 32) + number))
        number += 1
        if problem.question not in seen:
            seen.add(problem.question)
            yield problem


def rows(train: int = 2000, test: int = 200, seed: int = 0) -> dict[str, list[dict[str, str]]]:
    """Return so many train and test rows: `question`, and `answer`, whose last number is the one asked for.

    Validation is carved from train by the task.
    """
    if min(train, test) < 1 or train + test > MOST:
        raise TypeError(
            f"train and test must be at least 1, together {MOST}, not {train} and {test}"
        )
    made = problems(seed)
    found = [
        {"question": it.question, "answer": " ".join(it.steps)}
        for it, _ in zip(made, range(train + test), strict=False)
    ]
    return {"train": found[:train], "test": found[train:]}
