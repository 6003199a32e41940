"""The numbers behind the page of units, and what is said where some are missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import minirelu as mr
from minirelu.errors import printable
from minirelu.model.activations import mlp_names
from minirelu.report import units
from minirelu.report.page import write_report
from minirelu.report.units import unit_data
from minirelu.runs.checkpoint import checkpoint_folder, save_checkpoint
from minirelu.runs.formats import write_counts
from minirelu.sparsity.measure import measure


@pytest.fixture
def copied(finished_run, tmp_path) -> mr.Run:
    """A run to take things from."""
    return mr.Run.open(shutil.copytree(finished_run.folder, tmp_path / "copy"))


PAIRS = ("tokens", "special")  # token, firings, token, firings ...
OF_TOKENS = (*PAIRS, "raised", "lowered", "triggers")


def spelled(rows: list, data: dict, every: int = 1) -> list:
    """Texts of the tokens that numbers stand for, which are every so manieth."""
    words = data["vocabulary"]
    if any(isinstance(x, list) for row in rows for x in row):
        return [spelled(row, data) for row in rows]
    return [[x if at % every else words[x] for at, x in enumerate(row)] for row in rows]


def test_unit_data_agree_with_the_run_folder(finished_run):
    run, data = finished_run, unit_data(finished_run)
    assert json.loads(units.as_json(data)) == data
    steps = [probe["step"] for probe in run.probes()]
    counts = run.counts(steps[-1])
    assert data["notes"] == [] and data["step"] == steps[-1] and data["drawn"] == steps
    sizes = (data["n_tokens"], data["n_sequences"], data["n_batches"], data["batch_tokens"])
    assert sizes == (256, 16, 1, 256)  # a probe smaller than a batch
    at_step = [run.counts(step) for step in steps]
    for l, layer in enumerate(data["layers"]):
        assert layer["units"] == list(range(32)) and layer["width"] == 32
        for name in ("tokens_on", "sequences_on"):
            assert layer[name] == getattr(counts, name)[l].tolist()
        assert layer["batches_on"] == (counts.tokens_on[l] > 0).astype(int).tolist()
        timeline = np.array([c.tokens_on[l] for c in at_step])
        assert layer["timeline"] == timeline.T.tolist()
        for j in range(32):
            on = [step for step, n in zip(steps, timeline[:, j], strict=True) if n]
            assert (layer["first"][j], layer["last"][j]) == ((on[0], on[-1]) if on else (-1, -1))


def test_contexts_point_into_the_probe(finished_run):
    data = unit_data(finished_run)
    probe = finished_run.probe_tokens[:, :-1]
    texts = [finished_run.tokenizer.decode([i]) for i in probe.ravel().tolist()]
    assert [data["vocabulary"][i] for i in data["probe"]] == texts
    names = mlp_names(finished_run.config)
    _, acts = mr.forward(finished_run.params(data["step"]), probe, finished_run.config, keep=names)
    read = np.array(data["probe"])
    for name, layer in zip(names, data["layers"], strict=True):
        post = acts[name].reshape(probe.size, -1)
        for j, (tokens, contexts) in enumerate(
            zip(layer["tokens"], layer["contexts"], strict=True)
        ):
            for token, firings in zip(tokens[::2], tokens[1::2], strict=True):
                assert firings == ((read == token) & (post[:, j] > 0)).sum() > 0
            assert tokens[1::2] == sorted(tokens[1::2], reverse=True)
            for place, value in zip(contexts[::2], contexts[1::2], strict=True):
                assert value == pytest.approx(post[place, j], rel=0.01) and value > 0
            assert len({place // 16 for place in contexts[::2]}) == len(contexts) // 2
            if contexts:
                assert contexts[1] == pytest.approx(post[:, j].max(), rel=0.01)


def test_responses_and_writes_equal_brute_force(finished_run):
    """What is told of every unit, from its activations and weights, in plain loops."""
    run, data = finished_run, unit_data(finished_run)
    probe, names, params = run.probe_tokens[:, :-1], mlp_names(run.config), run.params()
    _, acts = mr.forward(params, probe, run.config, keep=names)
    ids = probe.ravel()
    n = Counter(ids.tolist())
    text = [printable(run.tokenizer.decode([i])) for i in range(run.config.d_vocab)]
    words = data["vocabulary"]
    W_E, gain = params["embed.W_E"].astype(float), params["ln_final.w"]
    told = 0
    for l, (name, layer) in enumerate(zip(names, data["layers"], strict=True)):
        post = acts[name].reshape(probe.size, -1)
        for j in range(32):
            fired = Counter(ids[post[:, j] > 0].tolist())
            on = sum(fired.values())
            often = {i: k / n[i] for i, k in fired.items() if k >= 5}
            best = sorted(often, key=lambda i: (-often[i], -fired[i], i))[:5]
            pairs = [(words[t], k) for t, k in zip(*[iter(layer["special"][j])] * 2, strict=True)]
            assert pairs == [(text[i], fired[i]) for i in best]
            told += len(best)
            entropy = -sum(k / on * np.log(k / on) for k in fired.values()) if on else -np.inf
            assert layer["effective"][j] == pytest.approx(np.exp(entropy), rel=0.01)
            kind = [data["specificity"]["kinds"][b] for b in range(8) if layer["kinds"][j] >> b & 1]
            assert ("silent" in kind) == (on == 0) and ("steady" in kind) == (on > 0.95 * len(ids))
            if not on:
                assert layer["raised"][j] == layer["lowered"][j] == layer["information"][j] == []
                continue
            row = params[f"blocks.{l}.mlp.W_out"][j]
            effects = ((row - row.mean()) * gain) @ W_E.T
            order = np.argsort(-effects)
            assert [words[t] for t in layer["raised"][j]] == [text[i] for i in order[:4]]
            assert [words[t] for t in layer["lowered"][j]] == [text[i] for i in order[:-5:-1]]
            assert len(layer["information"][j]) == len(layer["shuffled"][j]) == 4
    assert told > 50


def planted(run: mr.Run, tmp_path: Path, sign: int) -> tuple[mr.Run, int]:
    """A copy of a run in which unit 3 of the first layer is on at one token only, and writes it.

    The token's embedding is made so large that what the MLP reads there is apart from the rest.
    """
    run = mr.Run.open(shutil.copytree(run.folder, tmp_path / "planted"))
    step, params = run.steps[-1], run.params()
    probe = run.probe_tokens[:, :-1]
    token = Counter(probe.ravel().tolist()).most_common(1)[0][0]
    direction = np.random.default_rng(0).normal(size=run.config.d_model).astype(np.float32)
    params["embed.W_E"][token] = 100 * (direction - direction.mean())
    mlp = "blocks.0.mlp."
    name = "blocks.0.ln2.hook_normalized"
    read = mr.forward(params, probe, run.config, keep=[name])[1][name]
    at = probe == token
    key = read[at].mean(axis=0) - read[~at].mean(axis=0)
    pre = read @ key
    assert pre[at].min() > pre[~at].max(), "the token is not apart from the others"
    params[mlp + "W_in"][3] = key
    params[mlp + "b_in"][3] = -(pre[at].min() + pre[~at].max()) / 2
    params[mlp + "W_out"][3] = sign * params["embed.W_E"][token] * params["ln_final.w"]
    shutil.rmtree(checkpoint_folder(run.checkpoints, step))
    save_checkpoint(run.checkpoints, step, params, {}, {}, config={}, metrics_bytes=0)
    write_counts(run.counts_file(step), measure(params, run.probe_tokens, run.config)[0])
    return run, token


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_detector_is_told_with_its_trigger_and_what_it_does_with_it(
    finished_run, tmp_path, sign
):
    run, token = planted(finished_run, tmp_path, sign)
    data = unit_data(run)
    layer, kinds = data["layers"][0], data["specificity"]["kinds"]
    index = data["vocabulary"].index(run.tokenizer.decode([token]))
    n = int((run.probe_tokens[:, :-1] == token).sum())
    assert layer["kinds"][3] == 1 << kinds.index("token detector")
    assert layer["triggers"][3] == [[index]] and layer["special"][3] == [index, n]
    assert layer["tokens"][3] == [index, n] and layer["effective"][3] == 1
    assert layer["back"][3] == sign and layer["raised" if sign > 0 else "lowered"][3][0] == index
    share = n / 256
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    of_token, *_ = layer["information"][3]
    assert of_token / 1000 == pytest.approx(entropy, abs=0.01)  # it tells all there is to tell


def test_of_wide_layers_the_most_and_the_least_active_are_shown(finished_run, monkeypatch):
    everything = unit_data(finished_run)
    monkeypatch.setattr(units, "_MOST_UNITS", 10)  # five of each layer's 32
    data = unit_data(finished_run)
    assert any("half of the units shown are the most active" in note for note in data["notes"])
    for layer, whole in zip(data["layers"], everything["layers"], strict=True):
        assert layer["width"] == 32 and layer["units"] == sorted(layer["units"])
        shown, activity = layer["units"], np.array(whole["tokens_on"])
        order = np.argsort(-activity, kind="stable").tolist()
        assert set(shown) == {*order[:3], *order[-2:]}
        for name, values in layer.items():
            if isinstance(values, list):
                expected = [whole[name][j] for j in shown]
                if name in OF_TOKENS:  # whose numbers depend on which tokens the page knows
                    values = spelled(values, data, 1 + (name in PAIRS))
                    expected = spelled(expected, everything, 1 + (name in PAIRS))
                assert values == expected, name


def test_many_probes_are_thinned_for_drawing_not_for_lives(finished_run, monkeypatch):
    whole = unit_data(finished_run)
    monkeypatch.setattr(units, "_MOST_DRAWN", 3)
    data = unit_data(finished_run)
    assert len(data["drawn"]) == 3 and data["probes"] == whole["probes"] > 3
    assert (data["drawn"][0], data["drawn"][-1]) == (0, data["step"])
    for a, b in zip(data["layers"], whole["layers"], strict=True):
        at = [b_step in data["drawn"] for b_step in whole["drawn"]]
        assert a["timeline"] == np.array(b["timeline"])[:, at].tolist()
        assert (a["first"], a["last"], a["since"]) == (b["first"], b["last"], b["since"])


def test_missing_counts_and_weights_are_noted(copied, plain_figures):
    last = copied.probes()[-1]["step"]
    copied.counts_file(2).unlink()
    data = unit_data(copied)
    assert "probes (step 2);" in data["notes"][0] and 2 not in data["drawn"]

    for step in copied.steps:
        if step == last:
            (copied.checkpoints / f"step_{step:06d}" / "model.safetensors").unlink()
    data = unit_data(copied)
    assert f"weights of step {last} are not kept" in data["notes"][1]
    assert data["vocabulary"] == [] and "tokens" not in data["layers"][0]
    assert "<script>" in write_report(copied).read_text(encoding="utf-8")

    copied.counts_file(last).unlink()
    html = write_report(copied).read_text(encoding="utf-8")
    assert f"no per-unit counts of step {last}" in html and "<script" not in html
    assert "script-src" not in html


def test_damaged_counts_are_named(copied, plain_figures):
    copied.counts_file(4).write_bytes(b"PK oops")
    with pytest.raises(mr.UserError, match=r"step_000004.npz is damaged"):
        write_report(copied)


def test_only_the_page_s_own_script_may_run(finished_run, plain_figures):
    html = write_report(finished_run).read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html).group(1)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    (source,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'" and rules["default-src"] == "'none'"
    assert len(re.findall("<script", html)) == 2  # that one, and the data

    written = Path(units.__file__).parent
    for file in sorted(written.glob("*.js")):
        code = file.read_text(encoding="utf-8")
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "eval(",
            "document.write",
        ):
            assert forbidden not in code, f"{file.name}: {forbidden}"
