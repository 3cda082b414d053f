"""Which example when: once an epoch, whatever makes the batches, and like lengths together."""

import multiprocessing
import random

import numpy as np
import plain_loops
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graftlab.seeds import mix, seed_everything
from graftlab.training.order import (
    BUCKET,
    Batches,
    Order,
    epoch_batches,
    micro_batches,
    mixed_batches,
)
from graftlab.training.parallel.share import Share

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=300)
PIECES = st.tuples(st.integers(1, 7), st.integers(1, 5))


class Rows:
    """A task whose batch shows which examples were asked for, in which epoch."""

    def batch(self, split, indices, epoch):
        assert split == "train"
        return {"rows": torch.tensor([*indices, epoch])}


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**62), st.booleans())
def test_every_example_stands_once_in_an_epoch(lengths, batch_size, seed, group):
    order = Order(np.array(lengths), batch_size, seed, group)
    for epoch in range(2):
        first = epoch * order.steps_per_epoch + 1
        seen = [i for k in range(order.steps_per_epoch) for i in order.batch(first + k)]
        assert sorted(seen) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**62), st.booleans(), PIECES)
def test_all_processes_together_see_the_batch_in_its_order(lengths, size, seed, group, pieces):
    micro, world = pieces
    batch = Order(np.array(lengths), size, seed, group).batch(1)
    cut = [micro_batches(batch, micro, rank, world) for rank in range(world)]
    shares = [[i for piece in pieces for i in piece] for pieces in cut]
    woven = [shares[place % world][place // world] for place in range(len(batch))]
    assert woven == batch
    assert all(len(piece) <= micro for piece in cut[0])


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**62))
def test_a_step_is_the_same_whatever_was_asked_for_before(lengths, size, seed):
    walked, jumped = (Order(np.array(lengths), size, seed) for _ in range(2))
    last = 3 * walked.steps_per_epoch
    assert [walked.batch(step) for step in range(1, last + 1)][-1] == jumped.batch(last)


@pytest.mark.parametrize("group", [True, False])
def test_a_new_epoch_and_a_new_seed_have_another_order(group):
    lengths = np.arange(100)
    order, other = (Order(lengths, 10, seed, group) for seed in (0, 1))
    epochs = [[order.batch(epoch * 10 + k + 1) for k in range(10)] for epoch in range(2)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != [other.batch(k + 1) for k in range(10)]


@settings(max_examples=30)
@given(st.integers(0, 2**62))
def test_grouping_leaves_less_padding_than_any_shuffle_of_its_bucket(seed):
    lengths = np.random.default_rng(0).integers(1, 100, 20 * BUCKET)

    def padded(group):
        order = Order(lengths, 20, seed, group)
        batches = [order.batch(k + 1) for k in range(order.steps_per_epoch)]
        return sum(len(b) * lengths[b].max() for b in batches)

    # one bucket holds everything here, so the batches are the best there are
    ranked = np.sort(lengths)[::-1]
    assert padded(True) == sum(20 * ranked[i] for i in range(0, len(ranked), 20))
    assert padded(False) > 1.5 * padded(True)


def cuts(rows, size):
    return [tuple(rows[start : start + size]) for start in range(0, len(rows), size)]


def test_buckets_of_fifty_batches_are_sorted_longest_first_and_cut_and_their_batches_shuffled():
    size, seed = 3, 5
    lengths = np.random.default_rng(1).permutation(2 * BUCKET * size + 4)
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    expected = []
    for bucket in cuts(shuffled, BUCKET * size):
        expected += cuts(sorted(bucket, key=lambda row: -lengths[row]), size)
    found = [tuple(batch) for batch in epoch_batches(lengths, size, seed, True)]
    assert found != expected
    assert sorted(found) == sorted(expected)
    plain = [tuple(batch) for batch in epoch_batches(lengths, size, seed, False)]
    assert plain == cuts(shuffled, size)


def test_among_equal_lengths_the_shuffled_order_stays():
    size, lengths = 4, np.ones(3 * BUCKET * 4, dtype=int)
    grouped, plain = (
        sorted(tuple(batch) for batch in epoch_batches(lengths, size, 5, group))
        for group in (True, False)
    )
    assert grouped == plain


@pytest.mark.parametrize("group", [False, True])
def test_the_order_of_a_task_is_that_of_its_lengths_or_of_its_draws(group):
    plain, mixed = plain_loops.Squares(40), plain_loops.Halves(40)
    lengths = np.array(plain.lengths("train"))
    order, same = Order.of(plain, 6, 3, group), Order(lengths, 6, 3, group)
    steps = range(1, 2 * order.steps_per_epoch + 1)
    assert [order.batch(step) for step in steps] == [same.batch(step) for step in steps]
    order = Order.of(mixed, 6, 3, group)
    for epoch in range(2):
        seen = [order.batch(epoch * order.steps_per_epoch + k + 1) for k in range(7)]
        drawn = cuts(mixed.draws(3, epoch), 6)
        for batch, rows in zip(seen, drawn, strict=True):  # of one length, rows change places only
            assert sorted(row % 2 for row in batch) == sorted(row % 2 for row in rows)
        if not group:
            assert [tuple(batch) for batch in seen] == drawn


@pytest.mark.parametrize("equal", [False, True])
def test_within_a_task_examples_of_like_length_come_together_and_batches_keep_their_shares(equal):
    """Two buckets of fifty batches and one of seven rows; among equals the drawn order stays."""
    size, draw = 6, np.random.default_rng(2)
    number = 2 * BUCKET * size + 7
    lengths = np.ones(number, dtype=int) if equal else draw.permutation(number)
    parts, drawn = draw.integers(0, 3, number), draw.permutation(number)
    found = mixed_batches(drawn, lengths, parts, size, 5)
    assert [len(batch) for batch in found] == [size] * (2 * BUCKET + 1) + [1]
    again = mixed_batches(drawn, lengths, parts, size, 6)
    assert [list(batch) for batch in found] != [list(batch) for batch in again]
    place = {row: at for at, row in enumerate(drawn)}
    for first in range(0, len(found), BUCKET):
        bucket = drawn[first * size : (first + BUCKET) * size]
        batches = found[first : first + BUCKET]
        for old, new in zip(cuts(bucket, size), batches, strict=True):
            assert parts[list(old)].tolist() == parts[new].tolist()
        for part in range(3):
            mine = [row for row in bucket if parts[row] == part]
            ranked = sorted(mine, key=lambda row: (-lengths[row], place[row]))
            rank = {row: at for at, row in enumerate(ranked)}
            runs = [[rank[row] for row in batch if parts[row] == part] for batch in batches]
            pieces = sorted(run for run in runs if run)
            assert [at for piece in pieces for at in piece] == list(range(len(rank)))
            assert len(rank) < 9 or [run for run in runs if run] != pieces  # in another order


def test_a_process_with_fewer_micro_batches_idles_on_the_steps_first_example():
    """Nine examples for four processes, one at a time: 3, 2, 2 and 2 of them; at once, 1 each."""
    order = Order(np.ones(9, dtype=int), 9, 7)
    for size, missing in ((1, [0, 1, 1, 1]), (2, [0, 1, 1, 1]), (3, [0, 0, 0, 0])):
        for rank, number in enumerate(missing):
            batches = Batches(Rows(), order, 12, Share(rank, 4), 0)
            batches.micro_batch_size = size
            idle = [batch["rows"].tolist() for batch in batches.idle(3)]
            assert idle == [[order.batch(3)[0], 2]] * number
            assert (
                batches.count(3) == len(batches.get(3)) == -(-len(order.batch(3)[rank::4]) // size)
            )
            assert batches.parts(3) == []


def test_the_examples_of_the_first_steps_are_counted_over_epochs():
    order = Order(np.ones(10, dtype=int), 4, 7)
    seen = [order.examples(steps) for steps in range(8)]
    assert seen == [
        sum(len(order.batch(step)) for step in range(1, steps + 1)) for steps in range(8)
    ]
    assert [order.epoch(step) for step in (1, 3, 4, 6, 7)] == [0, 0, 1, 1, 2]


@pytest.mark.quick("0")
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_make_the_batches_of_the_step_also_after_a_restart(workers):
    order = Order(np.arange(1, 24), 5, 7)
    batches = Batches(Rows(), order, 12, Share(), workers)
    batches.micro_batch_size = 2

    def rows(made):
        return [batch["rows"].tolist() for batch in made]

    def expected(step, size):
        epoch = order.epoch(step)
        return [[*cut, epoch] for cut in micro_batches(order.batch(step), size)]

    try:
        assert [rows(batches.get(step)) for step in (1, 2)] == [expected(1, 2), expected(2, 2)]
        batches.micro_batch_size = 1
        batches.restart()
        assert [rows(batches.get(step)) for step in (2, 3)] == [expected(2, 1), expected(3, 1)]
    finally:
        batches.restart()
    assert not multiprocessing.active_children()


def test_seeding_everything_gives_the_draws_of_each_library_s_own_seed():
    seed = mix(7, "model", 3, 1, 0)
    seed_everything(seed)
    found = random.random(), np.random.random(), torch.rand(3).tolist(), torch.initial_seed()
    torch.manual_seed(seed)
    expected = torch.rand(3).tolist(), torch.initial_seed()
    assert found[2:] == expected
    assert found[0] == random.Random(seed).random()
    assert found[1] == np.random.RandomState(seed % 2**32).random()
