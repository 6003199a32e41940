"""Firings against the activations themselves."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_params, random_tokens

import minirelu as mr
from minirelu.model.activations import mlp_names
from minirelu.specificity import firings
from minirelu.specificity.firings import firings_of, read_firings

# n_ctx 9: sequences do not fill whole bytes; layers of different width
CONFIG = mr.ModelConfig(3, 1, 4, d_mlp=(5, 1, 8), n_ctx=9, d_vocab=7)


def unpacked(each) -> np.ndarray:
    return np.concatenate([on for _, on in each.blocks()])


@pytest.mark.parametrize("bits_bytes, at_once_bytes", [(1 << 29, 1 << 27), (1, 1)])
@pytest.mark.parametrize("act_fn", ["relu", "gelu"])
def test_bits_are_where_units_are_on(monkeypatch, bits_bytes, at_once_bytes, act_fn):
    monkeypatch.setattr(firings, "_BITS_BYTES", bits_bytes)
    monkeypatch.setattr(firings, "_AT_ONCE_BYTES", at_once_bytes)
    monkeypatch.setattr(firings, "_BLOCK", 3 * 9 * 21)  # three units at a time
    config = mr.ModelConfig(3, 1, 4, d_mlp=(5, 1, 8), n_ctx=9, d_vocab=7, act_fn=act_fn)
    params, sequences = random_params(config), random_tokens(config, 21, 10)
    read = []
    found = list(read_firings(params, sequences, config, on_read=lambda n, of: read.append(n / of)))
    logits, acts = mr.forward(params, sequences[:, :-1], config)
    loss, _ = mr.cross_entropy(logits, sequences[:, 1:])
    assert [each.layer for each in found] == [0, 1, 2] and sum(read) == pytest.approx(1)
    for each, name in zip(found, mlp_names(config), strict=True):
        post = acts[name].reshape(21 * 9, -1)
        np.testing.assert_array_equal(unpacked(each), (post > 0).T)
        assert each.n_tokens == 21 * 9 and each.loss == pytest.approx(loss)


def test_some_units_can_be_read_alone():
    params, sequences = random_params(CONFIG), random_tokens(CONFIG, 4, 10)
    units = [np.array([3, 1]), np.array([], int), np.array([7])]
    everything = read_firings(params, sequences, CONFIG)
    some = read_firings(params, sequences, CONFIG, units)
    for of_all, of_some, wanted in zip(everything, some, units, strict=True):
        np.testing.assert_array_equal(of_some.bits, of_all.bits[wanted])


def test_a_known_pattern_comes_back():
    on = np.random.default_rng(0).random((4, 13)) < 0.5
    np.testing.assert_array_equal(unpacked(firings_of(on)), on)


def test_texts_of_other_models_are_refused():
    params, sequences = random_params(CONFIG), random_tokens(CONFIG, 2, 10)
    with pytest.raises(mr.UserError, match="tokens: 10 positions"):
        next(read_firings(params, np.tile(sequences, 2)[:, :11], CONFIG))
    with pytest.raises(mr.UserError, match="targets: values from"):
        next(read_firings(params, np.where(np.arange(10) == 9, 7, sequences), CONFIG))
