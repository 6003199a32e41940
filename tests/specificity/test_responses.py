"""Planted units are found with exact figures; shuffled ones are not; counts equal brute force."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirelu.specificity import firings
from minirelu.specificity.firings import firings_of
from minirelu.specificity.information import Cells
from minirelu.specificity.responses import coverage, kinds, null_level, responses, varies
from minirelu.specificity.variables import VARIABLES, read_text

V, S, T = 8, 600, 16


@pytest.fixture(scope="module")
def sequences():
    return np.random.default_rng(0).integers(0, V, (S, T + 1))


@pytest.fixture(scope="module")
def planted(sequences):
    """Units by what was planted, as a pattern (U, N)."""
    a = sequences[:, :-1]
    before = np.pad(a, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    twice = np.pad(a, ((0, 0), (2, 0)), constant_values=-1)[:, :-2]
    t = np.broadcast_to(np.arange(T), a.shape)
    three = a == 3
    most = three & (np.cumsum(three).reshape(a.shape) % 25 != 0)  # fires on 96 % of the threes
    many = three & (np.cumsum(three).reshape(a.shape) % 15 != 0)  # on 93 %
    patterns = {
        "silent": a < 0,
        "steady": a >= 0,
        "token 3": three,
        "tokens 3 and 5": three | (a == 5),
        "96 % of token 3": most,
        "93 % of token 3": many,
        "six tokens": a < 6,
        "bigram 2 4": (before == 2) & (a == 4),
        "bigram start 4": (before == -1) & (a == 4),
        "trigram 1 2 4": (twice == 1) & (before == 2) & (a == 4),
        "first half": t < T // 2,
        "preceded by 7": before == 7,
        "followed by 7": sequences[:, 1:] == 7,
    }
    return list(patterns), np.stack(list(patterns.values())).reshape(len(patterns), -1)


def test_planted_units_are_found(sequences, planted):
    names, on = planted
    found = responses(firings_of(on), read_text(sequences))
    by_kind = {
        kind: {name for name, yes in zip(names, which, strict=True) if yes}
        for kind, which in kinds(found, S * T).items()
    }
    assert by_kind == {
        "silent": {"silent"},
        "steady": {"steady"},
        "token_detector": {"token 3", "tokens 3 and 5", "96 % of token 3"},
        "bigram_unit": {"bigram 2 4", "bigram start 4"},
        "trigram_unit": {"trigram 1 2 4"},
        "positional": {"first half"},
    }
    triggers = {
        name: [row[3 - n :].tolist() for row in rows if row[2] >= 0]
        for name, n, rows in zip(names, found.order, found.triggers, strict=True)
    }
    wanted = {
        "token 3": [[3]], "tokens 3 and 5": [[3], [5]], "96 % of token 3": [[3]],
        "bigram 2 4": [[2, 4]], "bigram start 4": [[-1, 4]], "trigram 1 2 4": [[1, 2, 4]],
    }  # fmt: skip
    for name in names:
        assert sorted(triggers[name]) == wanted.get(name, [])
    covering = dict(zip(names, found.coverage.tolist(), strict=True))
    assert covering["silent"] == [0, 0, 0] and covering["token 3"][0] == 1
    assert covering["bigram 2 4"][:2] == [1, 1] and covering["trigram 1 2 4"] == [1, 1, 1]
    numbers = dict(zip(names, found.effective_tokens, strict=True))
    assert numbers["silent"] == 0 and numbers["token 3"] == pytest.approx(1)
    share = np.bincount(sequences[:, :-1].ravel()) / (S * T)
    assert numbers["steady"] == pytest.approx(math.exp(-(share * np.log(share)).sum()))


def test_information_lies_where_it_was_planted(sequences, planted):
    names, on = planted
    found = responses(firings_of(on), read_text(sequences))
    rows = {name: i for i, name in enumerate(names)}
    for name, variable in (("token 3", "token"), ("preceded by 7", "previous"),
                           ("followed by 7", "next"), ("first half", "position")):  # fmt: skip
        f = on[rows[name]].mean()
        entropy = -f * math.log(f) - (1 - f) * math.log(1 - f)  # the variable says it all
        values = {v: found.information[v][rows[name]] for v in VARIABLES}
        assert values.pop(variable) == pytest.approx(entropy, abs=1e-3)
        # first positions have no token before: that tells them apart
        assert max(values.values()) < (0.05 if name == "first half" else 0.01)
    for variable in VARIABLES:
        assert found.information[variable][rows["silent"]] == 0
        assert found.information[variable][rows["steady"]] == 0
        assert not varies(found, S * T)[[rows["silent"], rows["steady"]]].any()


def test_shuffled_units_are_nothing(sequences):
    """The same rates at random places, among them units of a few firings only."""
    rng = np.random.default_rng(1)
    rates = np.concatenate([np.full(200, 8 / (S * T)), rng.uniform(0, 0.9, 200)])
    on = rng.random((400, S * T)) < rates[:, None]
    text = read_text(sequences)
    found = responses(firings_of(on), text)
    for kind, which in kinds(found, S * T).items():
        assert kind == "silent" or not which.any(), kind
    v = varies(found, S * T)
    for name in VARIABLES:
        # the correction leaves little, and no more than the null has
        assert abs(found.information[name][v].mean()) < 1e-3
        assert abs(found.null[name][v].mean()) < 1e-3
        above = (found.information[name][v] > null_level(found, name, S * T)[v]).mean()
        assert above < 0.05, name


def test_few_firings_on_a_rich_text_are_nothing():
    """Each of 5 random places has a 3-gram of its own, which occurs nowhere else."""
    rng = np.random.default_rng(0)
    rich = rng.integers(0, 1000, (100, 17))
    on = np.zeros((300, 1600), bool)
    for j in range(300):
        on[j, rng.choice(1600, 5 + j % 20, replace=False)] = True
    found = responses(firings_of(on), read_text(rich))
    assert not found.order.any() and found.coverage[:, 2].tolist() == [
        math.ceil(0.95 * (5 + j % 20)) for j in range(300)
    ]


def test_the_null_keeps_rates_and_loses_what_was_planted(sequences, planted):
    names, on = planted
    found = responses(firings_of(on), read_text(sequences))
    for name in VARIABLES:
        assert np.abs(found.null[name]).max() < 0.01
    again = responses(firings_of(on), read_text(sequences))
    other = responses(firings_of(on), read_text(sequences), seed=1)
    np.testing.assert_array_equal(found.null["token"], again.null["token"])
    assert not np.array_equal(found.null["token"], other.null["token"])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 12), length=st.integers(1, 9), values=st.integers(1, 5), k=st.integers(1, 4),
    rate=st.sampled_from([0.0, 0.2, 0.6, 1.0]), at_once=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_tokens_and_coverage_equal_brute_force(n, length, values, k, rate, at_once, seed):
    rng = np.random.default_rng(seed)
    sequences = rng.integers(0, values, (n, length + 1))
    read = sequences[:, :-1].ravel().tolist()
    # favours small ids, so that units differ
    on = rng.random((4, n * length)) < np.where(np.array(read) < 2, rate, rate / 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(firings, "_BLOCK", at_once * n * length)
        found = responses(firings_of(on), read_text(sequences), k)
    starts = [i - i % length for i in range(n * length)]
    for j in range(4):
        fired = np.flatnonzero(on[j]).tolist()
        counts, occurs = Counter(read[i] for i in fired), Counter(read)
        most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:k]
        listed = [*zip(found.frequent[j].tolist(), found.frequent_on[j].tolist(), strict=True)]
        assert listed == most + [(-1, 0)] * (k - len(most))

        lifts = {x: (c / occurs[x]) / (len(fired) / len(read)) for x, c in counts.items() if c >= 5}
        best = sorted(lifts, key=lambda x: (-counts[x] / occurs[x], -counts[x], x))[:k]
        short = k - len(best)
        assert found.characteristic[j].tolist() == best + [-1] * short
        assert found.characteristic_on[j].tolist() == [counts[x] for x in best] + [0] * short
        assert found.lift[j] == pytest.approx([lifts[x] for x in best] + [0] * short)

        for order in (1, 2, 3):
            grams = Counter(
                (min(order, i - starts[i] + 1), *read[max(starts[i], i - order + 1) : i + 1])
                for i in fired
            )
            needed, so_far = 0, 0
            for _, c in grams.most_common():
                if 100 * so_far >= 95 * len(fired):
                    break
                needed, so_far = needed + 1, so_far + c
            assert found.coverage[j, order - 1] == needed
        by_sequence = on[j].reshape(n, length).any(axis=1)
        assert found.on[j] == len(fired) and found.sequences_on[j] == by_sequence.sum()
        assert found.batches_on[j] == by_sequence.any()


def test_batches_are_full_ones(sequences):
    text = read_text(np.tile(sequences[:400], (3, 1)))  # 1200 sequences of 16: two batches of 512
    on = np.zeros((3, text.n_tokens), bool)
    on[0, [0, 20_000 - 4000]], on[1, 100], on[2, -1] = True, True, True  # the last in no full one
    assert responses(firings_of(on), text).batches_on.tolist() == [2, 1, 0]


def test_five_firings_are_the_floor(sequences):
    """A unit of 4 firings, all on one token's only occurrences, is not called a detector."""
    rare = sequences.copy()
    rare[:9, 3] = np.repeat([V, V + 1], [4, 5])
    on = np.stack([rare[:, :-1] == V, rare[:, :-1] == V + 1]).reshape(2, -1)
    found = responses(firings_of(on), read_text(rare))
    assert found.order.tolist() == [0, 1]
    assert found.characteristic[:, 0].tolist() == [-1, V + 1]
    assert found.lift[1, 0] == pytest.approx(S * T / 5)


def test_exactly_95_percent_is_enough():
    on = np.array([20, 20])
    found = Cells(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([19, 1, 18, 2]))
    assert coverage(found, on).tolist() == [1, 2]


def test_a_layer_of_no_units_has_no_responses(sequences):
    found = responses(firings_of(np.zeros((0, S * T), bool)), read_text(sequences), k=3)
    assert found.order.shape == (0,) and found.lift.shape == (0, 3)
    assert null_level(found, "token", S * T).shape == (0,)


def test_the_null_of_a_unit_is_that_of_units_that_fire_as_often():
    """A rare detector tells less than units that are half on would by chance; it counts."""
    rng = np.random.default_rng(0)
    rich = rng.integers(0, 500, (32, 65))
    rich[:10, 7] = 500
    read = rich[:, :-1].ravel()
    on = rng.random((301, read.size)) < np.where(np.arange(301) < 150, 0.5, 0.005)[:, None]
    on[300] = read == 500
    found = responses(firings_of(on), read_text(rich))
    assert found.information["token"][300] < np.median(found.null["token"][:150])
    above = found.information["token"] > null_level(found, "token", read.size)
    assert above[300] and above[:300].mean() < 0.05
    silent = responses(firings_of(np.zeros((1, read.size), bool)), read_text(rich))
    assert np.isnan(null_level(silent, "token", read.size)).all()
