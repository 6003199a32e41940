"""Measuring shard by shard, here and on workers: the same integers."""

from __future__ import annotations

from functools import partial

import dying
import numpy as np
import pytest
from helpers import ODD

import minirelu as mr
from minirelu.sparsity import shards
from minirelu.sparsity.measure import measure
from minirelu.sparsity.shards import cut, measure_shards
from minirelu.workers import process_pool

T = 9  # 910 sequences make a batch


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of one batch: the sequences below are four of them, the last one not full."""
    monkeypatch.setattr(shards, "SHARD_TOKENS", 8192)


@pytest.fixture(scope="module")
def sequences() -> np.ndarray:
    return np.random.default_rng(0).integers(0, ODD.d_vocab, (3 * 910 + 200, T + 1))


@pytest.fixture(scope="module")
def whole(sequences):
    """What one call over everything gives."""
    counts, loss = measure(dying.seldom_on(), sequences, ODD)
    in_batches = np.concatenate(counts.batches_on)
    assert ((in_batches > 0) & (in_batches < 3)).sum() > 2  # where batches are cut matters
    return counts, loss


def check_same(merged: tuple[mr.UnitCounts, float], whole: tuple[mr.UnitCounts, float]) -> None:
    assert merged[1] == pytest.approx(whole[1], rel=1e-12)
    expected = whole[0].to_arrays()
    for name, array in merged[0].to_arrays().items():
        np.testing.assert_array_equal(array, expected.pop(name), err_msg=name)
    assert not expected


def test_shards_in_this_process_give_the_same_counts(sequences, whole):
    measured = []
    merged = measure_shards(dying.load_odd, sequences, on_shard=measured.append)
    check_same(merged, whole)
    assert measured == [910 * T] * 3 + [200 * T]
    assert merged[0].n_batches == 3


def test_text_in_pieces_gives_the_same_counts(sequences, whole):
    pieces = np.split(sequences, [1, 1000, 1000, 2500])
    check_same(measure_shards(dying.load_odd, iter(pieces)), whole)


def test_shards_in_processes_give_the_same_counts(sequences, whole):
    in_process = measure_shards(dying.load_odd, sequences)
    with process_pool(2) as pool:
        merged = measure_shards(dying.load_odd, sequences, pool, ahead=3)
    check_same(merged, whole)
    assert merged[1] == in_process[1]  # to the last bit


def test_workers_use_the_weights_of_each_call(sequences):
    """A worker that has served one call does not measure the next one with the old weights."""
    few = sequences[:50]
    with process_pool(1) as pool:
        measure_shards(partial(tuple, (dying.seldom_on(1), ODD)), few, pool)
        merged = measure_shards(dying.load_odd, few, pool)
    check_same(merged, measure(dying.seldom_on(), few, ODD))


def test_shards_on_a_cluster_survive_a_killed_worker(sequences, whole, tmp_path, dask_address):
    from minirelu.workers import cluster

    marker = tmp_path / "died"
    with cluster(dask_address) as executor:
        merged = measure_shards(partial(dying.load_odd_dying, marker), sequences, executor)
    assert marker.exists()  # a worker did die
    check_same(merged, whole)


def test_shards_are_whole_batches():
    lengths = [len(shard) for shard in cut(np.zeros((2000, T + 1), int))]
    assert lengths == [910, 910, 180]
    assert [len(s) for s in cut(np.zeros((3, 10_001), int))] == [1, 1, 1]  # longer than a batch


@pytest.mark.parametrize(
    "given, words",
    [
        (np.zeros((0, 10), int), "no whole sequence"),
        (np.zeros((5, 1), int), r"shape \(5, 1\)"),
        (np.full((5, 10), 101), "101"),
    ],
)
def test_wrong_sequences_are_refused(given, words):
    with pytest.raises(mr.UserError, match=words):
        measure_shards(dying.load_odd, given)


def test_failures_in_workers_are_plain_errors(sequences):
    with process_pool(1) as pool, pytest.raises(FileNotFoundError):
        measure_shards(dying.load_nothing, sequences, pool)
    with process_pool(1) as pool, pytest.raises(mr.UserError, match="a worker process died"):
        measure_shards(dying.die, sequences, pool)
