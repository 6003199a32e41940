"""Layers in numbers, where everything is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import random_params

import minirelu as mr
from minirelu.specificity.firings import firings_of
from minirelu.specificity.layers import NUMBERS, last_minus_first, layer_numbers, of_seeds
from minirelu.specificity.responses import responses
from minirelu.specificity.variables import read_text
from minirelu.specificity.writes import writes

V, S, T = 8, 400, 8
CONFIG = mr.ModelConfig(1, 1, 4, d_mlp=6, n_ctx=T, d_vocab=V)


def numbers(on: np.ndarray, sequences: np.ndarray, params) -> dict[str, float]:
    text = read_text(sequences)
    return layer_numbers(responses(firings_of(on.reshape(len(on), -1)), text), text, params, 0)


def test_numbers_are_those_of_planted_units():
    sequences = np.random.default_rng(0).integers(0, V, (S, T + 1))
    read, params = sequences[:, :-1], random_params(CONFIG)
    found = writes(params, 0, k=1)
    own, removed = found.raised[0, 0], found.lowered[1, 0]
    first = np.broadcast_to(np.arange(T) < 4, read.shape)
    units = [read == own, read == removed, first, read >= 0, read < 0, read < 0]
    got = numbers(np.stack(units), sequences, params)
    assert list(got) == list(NUMBERS)
    expected = {
        "silent": 2 / 6, "steady": 1 / 6, "token_detector": 2 / 6, "bigram_unit": 0,
        "trigram_unit": 0, "few_tokens": 2 / 6, "positional": 1 / 6, "used_units": 4,
        "used_per_batch": 4 / 6, "detectors": 2, "writes_back": 1, "removes": 1,
    }  # fmt: skip
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    in_sequence = np.mean([unit.any(axis=1) for unit in units])
    assert got["token_in_sequence"] == pytest.approx(np.mean(units) / in_sequence)
    # the token says all of the first two, nothing of the third; the fourth is always on
    assert got["told_by_token"] == pytest.approx(1, abs=0.01)
    assert got["above_null_token"] >= 2 / 4 and got["above_null_position"] >= 1 / 4
    assert got["sequence_in_batch"] == pytest.approx(in_sequence / (4 / 6))


def test_a_silent_layer_has_nothing_to_tell():
    sequences = np.zeros((3, T + 1), int)
    got = numbers(np.zeros((6, 3, T), bool), sequences, random_params(CONFIG))
    assert got["silent"] == 1 and got["used_units"] == 0
    for name in ("information_token", "above_null_next", "effective_tokens", "token_in_sequence"):
        assert math.isnan(got[name])
        assert math.isnan(of_seeds([[{name: None}]], name)[0].value)
        assert math.isnan(last_minus_first([[{name: None}, {name: 1.0}]], name).value)
        assert NUMBERS[name].text(math.nan) == "-"
