"""What a batch leaves unused: units planted as specific, as silent and as used are told apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import command

from minirelu.claims.unused import SHARES, fates, specific_share, table_of, unused


def test_planted_fates_are_told_apart():
    batch, text, random = np.array([[5, 0, 0, 0, 0], [9, 1, 0, 2, 0], [0, 0, 7, 1, 0]])
    assert fates(batch, text, random) == {
        "used": 0.2, "elsewhere": 0.4, "random": 0.2, "never": 0.2
    }  # fmt: skip


def test_the_specific_share_is_of_the_unused_only():
    layer = {"used": 0.5, "elsewhere": 0.3, "random": 0.1, "never": 0.1}
    assert specific_share(layer) == pytest.approx(0.8)
    assert np.isnan(specific_share({"used": 1, "elsewhere": 0, "random": 0, "never": 0}))


@pytest.fixture
def planted(finished_run, monkeypatch):
    """Unit 0 of each layer can never fire, unit 1 always does."""
    params = finished_run.params()
    for l in range(finished_run.config.n_layers):
        params[f"blocks.{l}.mlp.W_in"][:2] = 0
        params[f"blocks.{l}.mlp.b_in"][:2] = -1, 1
    monkeypatch.setattr(type(finished_run), "params", lambda self, step=None: params)
    return finished_run


def test_a_unit_that_cannot_fire_is_in_none_and_one_that_must_is_in_all(planted):
    found = unused(planted, 2000)
    F = planted.config.mlp_widths[0]
    for layer in found["layers"]:
        assert sum(layer[name] for name in SHARES) == pytest.approx(1)
        assert layer["never"] >= 1 / F and layer["used"] >= 1 / F
        seen = layer["curve"]["seen"]
        assert seen == sorted(seen) and 1 / F <= seen[-1] <= 1 - 1 / F
        assert 1 / F <= layer["random_batch"] <= 1 - 1 / F
    assert found["batch"]["tokens"] == planted.probe_tokens[:, :-1].size
    assert 0 < found["read"] <= 2000


def test_a_unit_of_one_token_waits_for_it(finished_run, monkeypatch):
    """Unit 2 of the first layer is on at one token only, which neither batch nor text has."""
    config, params = finished_run.config, finished_run.params()
    read = [finished_run.probe_tokens, np.load(finished_run.folder / "tokens" / "train.npy")]
    absent = np.setdiff1d(np.arange(config.d_vocab), np.concatenate([r.ravel() for r in read]))
    assert len(absent), "the fixture's text has every token of its vocabulary"
    params["embed.W_E"][:] = params["pos_embed.W_pos"][:] = 0
    for name in ("W_O", "b_O"):
        params[f"blocks.0.attn.{name}"][:] = 0
    params["embed.W_E"][:, 0], params["embed.W_E"][:, 1] = 1, -1
    params["embed.W_E"][absent[0], :2] = -1, 1
    params["blocks.0.ln2.w"][:], params["blocks.0.ln2.b"][:] = 1, 0
    params["blocks.0.mlp.W_in"][2] = 0
    params["blocks.0.mlp.W_in"][2, 1], params["blocks.0.mlp.b_in"][2] = 1, 0
    monkeypatch.setattr(type(finished_run), "params", lambda self, step=None: params)
    F, found = config.mlp_widths[0], unused(finished_run, 2000)["layers"][0]
    assert found["random"] >= 1 / F
    params["embed.W_E"][absent[0], :2] = 1, -1  # now it is as all others, and nothing waits
    assert unused(finished_run, 2000)["layers"][0]["random"] == 0


def test_the_command_prints_a_row_for_each_layer(finished_run, tmp_path):
    done = command("unused", finished_run.folder, "--tokens", 2000, "--json", tmp_path / "u.json",
                   "--figure", tmp_path / "u.png")  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "u.json").read_text(encoding="utf-8"))["results"]
    rows = table_of(results)
    assert len(rows) == 1 + finished_run.config.n_layers
    assert f"{100 * results[0]['layers'][0]['used']:.1f}" == rows[1][1]
    assert (tmp_path / "u.png").stat().st_size > 5000


def test_mistakes_are_refused_plainly(finished_run, finished_sweep):
    done = command("unused", finished_run.folder, "--tokens", 5)
    assert done.returncode == 2 and "tokens: 5 is not allowed" in done.stderr
    done = command("unused", finished_sweep[0])
    assert done.returncode == 2 and "differ in more than the seed" in done.stderr
