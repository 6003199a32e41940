"""The field's definitions, on units made to fall under some of them and not under others."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import ODD, random_params, random_tokens

import minirelu as mr
from minirelu.death.definitions import agreement, definitions
from minirelu.errors import UserError
from minirelu.sparsity.dormancy import dormant_share


def test_each_definition_finds_its_own_units():
    tokens_on = np.array([[500] * 5, [500, 500, 0, 0, 5], [500, 500, 0, 0, 5], [500, 0, 0, 1, 500]])
    mean_post = np.array([1.0, 0.0, 0.0, 0.0003, 0.02])
    found = definitions(tokens_on, 10_000, mean_post, windows=2)
    assert {name: dead.astype(int).tolist() for name, dead in found.items()} == {
        "silent on 10,000 tokens": [0, 1, 1, 0, 0],
        "on at < 0.1 % of tokens": [0, 1, 1, 1, 0],
        "0.025-dormant": [0, 1, 1, 1, 0],
        "0.1-dormant": [0, 1, 1, 1, 1],
        "silent at 2 records": [0, 0, 1, 0, 0],
    }


def test_dormant_units_are_those_of_the_measure():
    counts = mr.UnitCounts(ODD)
    params = random_params(ODD)
    for l in range(ODD.n_layers):
        params[f"blocks.{l}.mlp.b_in"][:] -= np.linspace(0, 4, ODD.d_mlp)
    counts.update(mr.forward(params, random_tokens(ODD, 6, 9), ODD)[1])
    for l in range(ODD.n_layers):
        mean = counts.total[l] / counts.n_tokens
        found = definitions(counts.tokens_on[l][None], counts.n_tokens, mean, windows=1)
        share = found["0.1-dormant"].mean()
        assert 0 < share < 1
        assert share == dormant_share(counts, 0.1)[l]


def test_agreement_is_the_share_of_units_that_two_definitions_have_in_common():
    rng = np.random.default_rng(0)
    sets = {name: rng.random(200) < share for name, share in (("a", 0.2), ("b", 0.5), ("c", 0.0))}
    found = agreement(sets)
    assert found.names == ["a", "b", "c"]
    assert found.units.tolist() == [int(s.sum()) for s in sets.values()]
    a, b = sets["a"], sets["b"]
    assert found.jaccard[0, 1] == found.jaccard[1, 0] == (a & b).sum() / (a | b).sum()
    assert found.jaccard[0, 0] == 1
    assert found.jaccard[0, 2] == 0
    assert np.isnan(found.jaccard[2, 2])


def test_too_few_records_for_the_windows_are_refused_plainly():
    with pytest.raises(UserError, match="from 1 to 2"):
        definitions(np.ones((2, 4), int), 100, np.ones(4), windows=3)
    with pytest.raises(UserError, match="same units"):
        agreement({"a": np.ones(3, bool), "b": np.ones(4, bool)})
