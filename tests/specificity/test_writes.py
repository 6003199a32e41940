"""What units write, against the model itself and a plain matrix product."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_params

import minirelu as mr
from minirelu.model.transformer import norm
from minirelu.specificity import writes as module
from minirelu.specificity.writes import direct_effects, writes, writes_back

CONFIG = mr.ModelConfig(2, 3, 12, d_mlp=(5, 37), n_ctx=9, d_vocab=301)


def plain(params, layer) -> np.ndarray:
    """The same by matrices: centring, gain, unembedding, centring."""
    C, V = CONFIG.d_model, CONFIG.d_vocab
    rows = params[f"blocks.{layer}.mlp.W_out"]
    centre = np.eye(C) - 1 / C
    logits = rows @ centre @ np.diag(params["ln_final.w"]) @ params["embed.W_E"].T
    return logits @ (np.eye(V) - 1 / V)


@pytest.mark.parametrize("block", [1 << 22, 301 * 2])
def test_writes_are_those_of_a_plain_matrix_product(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    params = random_params(CONFIG)
    for layer, F in enumerate(CONFIG.d_mlp):
        exact = plain(params, layer)
        np.testing.assert_allclose(direct_effects(params, layer), exact, atol=1e-12)
        found = writes(params, layer, k=4)
        for j in range(F):
            order = np.argsort(-exact[j])
            assert found.raised[j].tolist() == order[:4].tolist()
            assert found.lowered[j].tolist() == order[::-1][:4].tolist()
        np.testing.assert_allclose(found.up, np.take_along_axis(exact, found.raised, 1), atol=1e-9)
        np.testing.assert_allclose(
            found.down, np.take_along_axis(exact, found.lowered, 1), atol=1e-9
        )
        some = writes(params, layer, k=4, units=np.array([3, 0]))
        np.testing.assert_array_equal(some.raised, found.raised[[3, 0]])


def test_direct_effects_are_what_the_logits_gain():
    """The final norm's own derivative, where it divides by what it divides by."""
    params = random_params(CONFIG)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 1, 12)) * 1e6  # so large that a row hardly moves its deviation
    std = x.std()
    row = params["blocks.1.mlp.W_out"][7]

    def logits(x):
        return norm(params, "ln_final", x, CONFIG)[0, 0] @ params["embed.W_E"].T

    gained = (logits(x + row) - logits(x - row)) / 2 * std
    normal = (x - x.mean()) / std
    along = (row - row.mean()) @ normal[0, 0] / 12  # what the deviation itself gains
    gained += along * (normal[0, 0] * params["ln_final.w"]) @ params["embed.W_E"].T
    np.testing.assert_allclose(
        gained - gained.mean(), direct_effects(params, 1, np.array([7]))[0], atol=1e-3
    )


def test_whether_a_trigger_is_written_back_or_removed():
    params = random_params(CONFIG)
    order = np.argsort(plain(params, 1)[4])
    units = np.full(8, 4)
    # of 301 tokens 1 % is 3.01: the first four have at most 3 before them
    triggers = order[[-1, -4, -5, 150, 4, 3, 0, 0]]
    assert writes_back(params, 1, units, triggers).tolist() == [1, 1, 0, 0, 0, -1, -1, -1]


def test_by_chance_two_triggers_in_a_hundred_stand_out():
    params = random_params(CONFIG)
    units, tokens = np.divmod(np.arange(37 * 301), 301)
    found = writes_back(params, 1, units, tokens)
    assert (found == 1).mean() == (found == -1).mean() == 4 / 301


def test_a_vocabulary_of_few_tokens_gives_fewer():
    config = mr.ModelConfig(1, 1, 4, d_mlp=3, n_ctx=2, d_vocab=3)
    found = writes(random_params(config), 0, k=5)
    assert found.raised.shape == (3, 3)
    assert found.raised[0].tolist() == found.lowered[0, ::-1].tolist()
