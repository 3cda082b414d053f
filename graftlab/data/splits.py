"""Three disjoint splits: train, validation (for choosing) and test (for reporting, never touched).

A task without train, which can only be evaluated on, has the rest.

The order: hidden test labels first (the official validation becomes test), then rows that stand in two
splits, then carving test (where a share is asked for) and validation from train, then sampling. Each step
is counted in the record.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from graftlab.contracts import Note, read_notes, written
from graftlab.data.bad_rows import MAX_SHOWN
from graftlab.data.rows import Rows
from graftlab.data.section import DataSection
from graftlab.data.sources import SPLITS
from graftlab.errors import Argument, DataError, Place, unknown
from graftlab.seeds import mix

TESTS = {"test_carved": "train", "validation_is_test": "validation"}
"""Notes that say of what other split test is made."""
YIELDS = (("validation", ("test",)), ("train", ("validation", "test")))
"""Which split loses an input to which others, where both have it."""
ALSO_IN = "also_in_"
"""Begins the keys of `overlap` in the record: the other split stands behind it."""


def no_split(split: str, held: Sequence[str]) -> DataError:
    """Return the error to raise for a split that a task does not have, or that has no examples."""
    return DataError(
        unknown("split of this task", split, held),
        place=Place(argument=Argument("split", split)),
        kind="no_split",
        given=split,
        allowed=list(held),
    )


def digest(*parts: str | bytes) -> bytes:
    """Return 16 bytes that stand for the parts, their borders included."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.digest()


def assign(
    splits: Mapping[str, Rows], hidden: set[str], carved: bool = False
) -> tuple[dict[str, Rows], list[Note]]:
    """Return the splits by their use, without those that have no labels, and notes on what was changed.

    Where test is going to be `carved`, validation stays what it is.
    """
    use = {split: rows for split, rows in splits.items() if split not in hidden}
    notes = [Note.of("split_unlabelled", split=split) for split in sorted(hidden)]
    if "train" in hidden:
        raise DataError("train has no labels: every label is missing or -1.")
    if carved and "train" in use:
        return use, notes
    if "test" not in use and "validation" in use:
        use["test"] = use.pop("validation")
        notes.append(Note.of("validation_is_test"))
    if "test" not in use:
        notes.append(Note.of("no_test"))
    return use, notes


def disjoint(
    splits: Mapping[str, Rows], overlap: str = "drop"
) -> tuple[dict[str, Rows], dict[str, Any]]:
    """Return splits of which no two share an input: validation yields to test, train to both.

    Raises:
        DataError: two splits share an input and `overlap` is `refuse`.
    """
    keys = {split: rows.columns["key"] for split, rows in splits.items()}
    result = dict(splits)
    record: dict[str, Any] = {}
    for split, others in YIELDS:
        for other in others:
            if split not in splits or other not in splits:
                continue
            places = {k: position for position, k in reversed(list(enumerate(keys[other])))}
            shared = [(i, places[k]) for i, k in enumerate(keys[split]) if k in places]
            if not shared:
                continue
            pairs = [(splits[split].called(i), splits[other].called(j)) for i, j in shared]
            if overlap == "refuse":
                raise DataError(refusal(split, other, pairs))
            record.setdefault(split, {})[ALSO_IN + other] = {
                "count": len(pairs),
                "rows": [row for row, _ in pairs],
            }
        taken = {k for other in others for k in keys.get(other, ())}
        if split in splits and taken:
            kept = [i for i, k in enumerate(keys[split]) if k not in taken]
            if not kept:
                raise DataError(f"every {split} row also stands in {' or '.join(others)}.")
            if len(kept) < len(splits[split]):
                result[split] = splits[split].take(kept)
    return result, record


def refusal(split: str, other: str, pairs: Sequence[tuple[int | str, int | str]]) -> str:
    """Say which rows of a split stand in another too; `pairs` are their numbers, from 1, or their files."""
    named = [
        [
            f"{which} row {row}" if isinstance(row, int) else row
            for which, row in ((split, a), (other, b))
        ]
        for a, b in pairs[:MAX_SHOWN]
    ]
    shown = "".join(f"\n  {first} = {second}" for first, second in named)
    more = f"\n  and {len(pairs) - MAX_SHOWN} more" if len(pairs) > MAX_SHOWN else ""
    return (
        f"{len(pairs)} rows of {split} also stand in {other} (white space and case aside):{shown}{more}\n"
        f"Take them out, or let graftlab do it with task.overlap: drop."
    )


def carve(train: Rows, share: float, seed: int, purpose: str = "validation") -> tuple[Rows, Rows]:
    """Return train and a split taken from it: `share` of the distinct inputs of each class.

    Rows with the same input stay together. Scores are stratified by their integer part.

    Raises:
        DataError: train has fewer than two distinct inputs.
    """
    import numpy as np

    groups: dict[bytes, list[int]] = defaultdict(list)
    for position, key in enumerate(train.columns["key"]):
        groups[key].append(position)
    if len(groups) < 2:
        raise DataError(
            f"train has {len(groups)} distinct input; {purpose} can be carved from two or more. "
            f"Give a {purpose} split."
        )
    strata: dict[int, list[list[int]]] = defaultdict(list)
    for positions in groups.values():
        strata[int(train.columns["label"][positions[0]])].append(positions)
    use = "carve" if purpose == "validation" else f"carve {purpose}"
    chosen: list[int] = []
    # Numbers of groups are rounded on the running total, so that small classes do not all round to 0.
    total = target = 0
    for stratum in sorted(strata):
        members = strata[stratum]
        total += len(members)
        wanted = min(max(round(total * share), 1) - target, len(members) - 1)
        target += wanted
        order = np.random.default_rng(mix(seed, use, stratum)).permutation(len(members))
        chosen.extend(position for i in order[:wanted] for position in members[i])
    if not chosen:
        chosen = next(iter(groups.values()))
    validation = sorted(chosen)
    held = set(validation)
    return train.take(i for i in range(len(train)) if i not in held), train.take(validation)


def carve_last(train: Rows, count: int) -> tuple[Rows, Rows]:
    """Return train and a validation split of its last `count` rows; train loses what is equal to one of them.

    Raises:
        DataError: nothing is left to train on.
    """
    start = len(train) - count
    held = set(train.columns["key"][max(start, 0) :])
    kept = [i for i, key in enumerate(train.columns["key"][: max(start, 0)]) if key not in held]
    if not kept:
        raise DataError(
            f"task.validation_last is {count}, but train has {len(train)} rows, and some have to be left."
        )
    return train.take(kept), train.take(range(start, len(train)))


def origins(record: Mapping[str, Any]) -> dict[str, str]:
    """Return for each split the split of the source that its rows come from, by the record of `prepare`."""
    kinds = {note.kind for note in read_notes(record.get("notes", ()))}
    return {
        "train": "train",
        "validation": "train" if "validation_carved" in kinds else "validation",
        "test": next((split for kind, split in TESTS.items() if kind in kinds), "test"),
    }


def sample(rows: Rows, count: int, seed: int, split: str) -> Rows:
    """Return `count` rows drawn at random without replacement, in their order."""
    import numpy as np

    if count >= len(rows):
        return rows
    order = np.random.default_rng(mix(seed, "sample", split)).permutation(len(rows))
    return rows.take(sorted(order[:count].tolist()))


def fingerprint(rows: Rows) -> str:
    """Return the sha256 over the rows, their order and labels included; `key` stands in for images."""
    hashed = hashlib.sha256()
    for row in rows:
        row["key"] = row["key"].hex()
        row.pop("image", None)
        hashed.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return hashed.hexdigest()


def prepare(
    splits: Mapping[str, Rows], hidden: set[str], config: DataSection
) -> tuple[dict[str, Rows], dict[str, Any], dict[str, list[bytes]]]:
    """Return the three splits as they are used, the record of how they came about, and the rows' keys.

    Raises:
        DataError: they overlap and that is refused, or nothing is left to train on.
    """
    used, notes = assign(splits, hidden, config.test_share is not None)
    used, dropped = disjoint(used, config.overlap)
    for split, others in dropped.items():
        for other, what in others.items():
            at = {"count": what["count"], "rows": what["rows"][:3]}
            name = other.removeprefix(ALSO_IN)
            notes.append(Note.of("rows_in_two_splits", split=split, other=name, **at))
    share = config.validation_share
    if "train" in used and "test" not in used and config.test_share is not None:
        asked = config.test_share
        used["train"], used["test"] = carve(used["train"], asked, config.split_seed, "test")
        share /= 1 - asked
        notes.append(Note.of("test_carved", rows=len(used["test"])))
    if "train" in used and "validation" not in used:
        train, last = used["train"], config.validation_last
        used["train"], used["validation"] = (
            carve_last(train, last) if last else carve(train, share, config.split_seed)
        )
        notes.append(Note.of("validation_carved", rows=len(used["validation"])))
        if repeated := len(train) - len(used["train"]) - len(used["validation"]):
            lost = {"rows": repeated, "split": "train", "other": "validation"}
            notes.append(Note.of("rows_repeated", **lost))
    empty = Rows({name: [] for name in next(iter(used.values())).columns})
    used = {split: used.get(split, empty) for split in SPLITS if split in used or split != "test"}
    original = {split: len(rows) for split, rows in used.items()}
    count = max(1, round(original["train"] * config.train_data_ratio))
    caps = {
        "train": min(count, config.max_train_samples or count),
        "validation": config.max_validation_samples,
        "test": config.max_test_samples,
    }
    for split, cap in caps.items():
        if split in used and cap is not None:
            used[split] = sample(used[split], cap, config.split_seed, split)
    used.setdefault("test", empty)
    record = {
        "overlap": dropped,
        "original_sizes": original,
        "sizes": {split: len(rows) for split, rows in used.items()},
        "validation/original_train_data_size": original["train"],
        "validation/sliced_train_data_size": len(used["train"]),
        "fingerprint": {split: fingerprint(rows) for split, rows in used.items()},
        "notes": written(notes),
    }
    keys = {split: rows.columns["key"] for split, rows in used.items()}
    return {split: rows.without("key") for split, rows in used.items()}, record, keys
