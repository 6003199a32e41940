"""What units fire on, against brute force; and their lives over probes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers import random_params, random_tokens
from hypothesis import given, settings
from hypothesis import strategies as st

import minirelu as mr
from minirelu.model.activations import mlp_names
from minirelu.sparsity import contexts
from minirelu.sparsity.contexts import unit_contexts
from minirelu.sparsity.lives import lives

# 7 tokens only, so that ties are many; layers of different width
CONFIG = mr.ModelConfig(2, 1, 4, d_mlp=(5, 8), n_ctx=6, d_vocab=7)


def brute_force(post: np.ndarray, tokens: np.ndarray, k: int):
    """For one unit, (S, T): its tokens with counts, and its contexts, in plain Python."""
    S, T = tokens.shape
    fired = Counter(int(tokens[s, t]) for s in range(S) for t in range(T) if post[s, t] > 0)
    most = sorted(fired.items(), key=lambda item: (-item[1], item[0]))[:k]
    best = []
    for s in range(S):
        t = max(range(T), key=lambda t: (post[s, t], -t))
        if post[s, t] > 0:
            best.append((s, t, float(post[s, t])))
    return most, sorted(best, key=lambda c: (-c[2], c[0]))[:k]


def check(actual, acts, tokens, units, k) -> None:
    for l, name in enumerate(mlp_names(CONFIG)):
        assert all(a.shape == (len(units[l]), k) for a in actual[l])
        for row, unit in enumerate(units[l]):
            most, best = brute_force(acts[name][:, :, unit], tokens, k)
            listed = [*zip(*(actual[l][i][row].tolist() for i in (0, 1)), strict=True)]
            assert listed == most + [(-1, 0)] * (k - len(most))
            listed = [*zip(*(actual[l][i][row].tolist() for i in (2, 3, 4)), strict=True)]
            assert listed == best + [(-1, -1, 0.0)] * (k - len(best))


@settings(max_examples=40, deadline=None)
@given(
    S=st.integers(1, 7),
    T=st.integers(1, 6),
    k=st.integers(1, 9),
    bias=st.sampled_from([-3.0, -0.5, 0.0, 1.0]),
    at_once=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_contexts_equal_brute_force(S, T, k, bias, at_once, seed):
    params = random_params(CONFIG, seed)
    for l in range(2):
        params[f"blocks.{l}.mlp.b_in"][...] = bias  # nearly all silent, to nearly all on
        params[f"blocks.{l}.mlp.b_in"][0] = -1e9  # never on
    sequences = random_tokens(CONFIG, S, T + 1, seed)
    if S > 1:
        sequences[-1] = sequences[0]  # equal contexts: the earlier one goes first
    tokens = sequences[:, :-1]
    # the same parts at a time as the function: another shape could round otherwise
    parts = [
        mr.forward(params, tokens[i : i + at_once], CONFIG, keep=mlp_names(CONFIG))[1]
        for i in range(0, S, at_once)
    ]
    acts = {name: np.concatenate([part[name] for part in parts]) for name in mlp_names(CONFIG)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contexts, "_sequences_at_once", lambda *_: at_once)
        actual = unit_contexts(params, sequences, CONFIG, k=k)
        check(actual, acts, tokens, [np.arange(5), np.arange(8)], k)

        some = [np.array([3, 0]), np.array([], int)]  # of one layer two, of the other none
        check(unit_contexts(params, sequences, CONFIG, some, k), acts, tokens, some, k)

        patch.setattr(contexts, "_COUNT_BYTES", 1)  # a forward pass for every layer
        one_by_one = unit_contexts(params, sequences, CONFIG, k=k)
    for a, b in zip(actual, one_by_one, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_memory_limits_what_is_read_at_once_and_progress_is_reported(monkeypatch):
    params, sequences = random_params(CONFIG), random_tokens(CONFIG, 5, 5)
    read = []
    unit_contexts(params, sequences, CONFIG, on_read=lambda n, of: read.append((n, of)))
    assert read == [(5, 5)]
    monkeypatch.setattr(contexts, "_AT_ONCE_BYTES", 1)
    monkeypatch.setattr(contexts, "_COUNT_BYTES", 1)
    read.clear()
    unit_contexts(params, sequences, CONFIG, on_read=lambda n, of: read.append((n, of)))
    assert read == [(1, 10)] * 10  # a sequence at a time, twice: once for each layer


def test_mistakes_are_named():
    params, sequences = random_params(CONFIG), random_tokens(CONFIG, 1, 4)
    with pytest.raises(ValueError, match="k: 0"):
        unit_contexts(params, sequences, CONFIG, k=0)
    with pytest.raises(ValueError, match="must be from 0 to 6"):
        unit_contexts(params, sequences + 7, CONFIG)
    for steps, on in (([], np.zeros((0, 3), bool)), ([0], np.zeros((2, 3), bool))):
        with pytest.raises(ValueError, match="one step for each"):
            lives(steps, on)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_lives_equal_brute_force(rows):
    on = np.array(rows)
    steps = [3 * i * i for i in range(len(rows))]
    actual = lives(steps, on)
    for j in range(4):
        when = [step for step, is_on in zip(steps, on[:, j], strict=True) if is_on]
        assert actual.first_on[j] == (when[0] if when else -1)
        assert actual.last_on[j] == (when[-1] if when else -1)
        silent = [step for step in steps if step > (when[-1] if when else -1)]
        assert actual.silent_since[j] == (silent[0] if silent else -1)
