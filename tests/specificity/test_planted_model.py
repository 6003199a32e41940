"""Detectors planted in the weights of a model are found by running it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import random_tokens

import minirelu as mr
from minirelu.specificity.firings import read_firings
from minirelu.specificity.responses import kinds, responses
from minirelu.specificity.variables import read_text
from minirelu.specificity.writes import writes_back

V = T = 6
# The residual stream has room for the token, the position, and the tokens one and two before.
TOKEN, POSITION, ONE_BEFORE, TWO_BEFORE = (slice(6 * i, 6 * i + 6) for i in range(4))
CONFIG = mr.ModelConfig(1, 2, 24, d_mlp=6, n_ctx=T, d_vocab=V)


@pytest.fixture(scope="module")
def params() -> mr.Parameters:
    """Head h attends h + 1 positions back and copies the token; units read what is wanted."""
    params = mr.Parameters(CONFIG, np.float64)
    for name, p in params.items():
        p[...] = 1.0 if name.endswith(".w") else 0.0
    one = np.eye(6)
    params["embed.W_E"][:, TOKEN] = one
    params["pos_embed.W_pos"][:, POSITION] = one
    for h, room in enumerate((ONE_BEFORE, TWO_BEFORE)):
        columns, attn = slice(12 * h, 12 * h + 6), "blocks.0.attn."
        params[attn + "W_Q"][POSITION, columns] = 20 * np.eye(6, k=-h - 1)  # the place looked for
        params[attn + "W_K"][POSITION, columns] = one
        params[attn + "W_V"][TOKEN, columns] = 0.3 * one  # as large as the token itself
        params[attn + "W_O"][columns, room] = one
    W_in, b_in, W_out = (params[f"blocks.0.mlp.{name}"] for name in ("W_in", "b_in", "W_out"))
    W_in[0, TOKEN] = W_in[1, TOKEN] = one[3]
    W_in[2, TOKEN], W_in[2, ONE_BEFORE] = one[4], one[2]
    W_in[3, TOKEN], W_in[3, ONE_BEFORE], W_in[3, TWO_BEFORE] = one[4], one[2], one[1]
    W_in[4, POSITION] = [1, 1, 1, 0, 0, 0]
    W_in[5] = 0
    # between what they shall and shall not fire on
    b_in[:] = [-1, -1, -3.2, -5.4, -0.3, -1]
    W_out[0, TOKEN], W_out[1, TOKEN] = one[3], -one[3]
    return params


def test_planted_units_are_found_in_a_model(params):
    sequences = random_tokens(CONFIG, 1000, T + 1)
    (firings,) = read_firings(params, sequences, CONFIG)
    text = read_text(sequences)
    found = responses(firings, text)
    which = {name: np.flatnonzero(yes).tolist() for name, yes in kinds(found, 6000).items()}
    assert which == {
        "silent": [5], "steady": [], "token_detector": [0, 1], "bigram_unit": [2],
        "trigram_unit": [3], "positional": [4],
    }  # fmt: skip
    triggers = found.triggers[:4, 0].tolist()
    assert triggers == [[-1, -1, 3], [-1, -1, 3], [-1, 2, 4], [1, 2, 4]]
    assert (found.triggers[:, 1:] == -1).all() and (found.triggers[4:] == -1).all()
    read = sequences[:, :-1]
    counts = [(read == 3).sum()] * 2
    counts += [((read[:, :-1] == 2) & (read[:, 1:] == 4)).sum()]
    three = (read[:, :-2] == 1) & (read[:, 1:-1] == 2) & (read[:, 2:] == 4)
    assert found.on.tolist() == [*counts, three.sum(), 3000, 0]
    # half of the positions: the position says all of it, less (2 + 6 - 6 - 1) / 2N
    assert found.information["position"][4] == pytest.approx(math.log(2) + 1 / 12_000)
    assert found.information["token"][0] > 0.4 > 0.01 > found.information["token"][4]
    assert found.characteristic[:4, 0].tolist() == [3, 3, 4, 4]


def test_one_writes_its_trigger_back_and_one_removes_it(params):
    back = writes_back(params, 0, np.array([0, 1, 2]), np.array([3, 3, 4]))
    # the third writes nothing: all logits alike, so neither more nor less than others
    assert back.tolist() == [1, -1, 0]
