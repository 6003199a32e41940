"""The numbers behind the page of units, and what is said where some are missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import minirelu as mr
from minirelu.model.activations import mlp_names
from minirelu.report import units
from minirelu.report.page import write_report
from minirelu.report.units import unit_data


@pytest.fixture
def copied(finished_run, tmp_path) -> mr.Run:
    """A run to take things from."""
    return mr.Run.open(shutil.copytree(finished_run.folder, tmp_path / "copy"))


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


def test_of_wide_layers_the_most_and_the_least_active_are_shown(finished_run, monkeypatch):
    everything = unit_data(finished_run)["layers"]
    monkeypatch.setattr(units, "_MOST_UNITS", 10)  # five of each layer's 32
    data = unit_data(finished_run)
    assert any("half of the units shown are the most active" in note for note in data["notes"])
    for layer, whole in zip(data["layers"], everything, strict=True):
        assert layer["width"] == 32 and layer["units"] == sorted(layer["units"])
        shown, activity = layer["units"], np.array(whole["tokens_on"])
        order = np.argsort(-activity, kind="stable").tolist()
        assert set(shown) == {*order[:3], *order[-2:]}
        for name, values in layer.items():
            if isinstance(values, list):
                assert values == [whole[name][j] for j in shown], name


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
