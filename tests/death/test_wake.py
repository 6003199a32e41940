"""``minirelu wake``: who is silent, what it finds for them, what it writes, and every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import check_fails_plainly, command, drawn

import minirelu as mr
from minirelu.death.wake import by_age, read_wake, silence, tally
from minirelu.errors import UserError
from minirelu.figures import KINDS, figures_of
from minirelu.model.activation_functions import is_on
from minirelu.runs.checkpoint import checkpoint_folder, save_checkpoint
from minirelu.runs.formats import write_counts
from minirelu.sparsity.measure import measure
from minirelu.text.batches import consecutive, open_tokens
from minirelu.text.tokenizer import Tokenizer

OPTIONS = ("--units", 6, "--budget", 300, "--length", 16, "--threads", 1)


@pytest.fixture(scope="module")
def quiet_run(finished_run, tmp_path_factory) -> mr.Run:
    """A finished run in whose last layer, at its last step, units 0 to 9 are never on.

    Units 0 to 4 by so little that another text must wake them, 5 to 9 whatever it reads. The
    others fire, if they can, in the held-out text and not on the probe.
    """
    folder = tmp_path_factory.mktemp("quiet") / "run"
    run = mr.Run.open(shutil.copytree(finished_run.folder, folder))
    params = run.params(12)
    held_out = consecutive(open_tokens(folder / "tokens" / "val.npy"), run.config.n_ctx)
    text = np.concatenate([np.asarray(held_out), run.probe_tokens])
    pre = "blocks.1.mlp.hook_pre"

    def highest(tokens):
        return mr.forward(params, tokens[:, :-1], run.config, keep=[pre])[1][pre].max(axis=(0, 1))

    above, bias = highest(text), params["blocks.1.mlp.b_in"]
    on_probe = highest(run.probe_tokens)
    bias[:5] -= above[:5] + 1e-3
    bias[5:10] = -1e3
    seldom = 10 + np.flatnonzero((above - on_probe)[10:] > 1e-4)
    bias[seldom] -= (above + on_probe)[seldom] / 2
    shutil.rmtree(checkpoint_folder(run.checkpoints, 12))
    save_checkpoint(run.checkpoints, 12, params, {}, {}, config={}, metrics_bytes=0)
    write_counts(run.counts_file(12), measure(params, run.probe_tokens, run.config)[0])
    return run


@pytest.fixture
def quiet(quiet_run, tmp_path) -> Path:
    """A copy of it, to write to."""
    return Path(shutil.copytree(quiet_run.folder, tmp_path / "quiet"))


def fires(run, layer, unit, text) -> bool:
    post = f"blocks.{layer}.mlp.hook_post"
    acts = mr.forward(run.params(12), np.array([text]), run.config, keep=[post])[1]
    return bool(is_on(acts[post])[0, -1, unit])


def test_silent_is_on_nowhere_in_probe_and_held_out_text(quiet_run):
    found = silence(quiet_run)
    held_out = consecutive(open_tokens(quiet_run.folder / "tokens/val.npy"), quiet_run.config.n_ctx)
    assert (found.step, found.n_sequences, found.n_tokens) == (
        12,
        len(held_out),
        held_out[:, 1:].size,
    )
    params = quiet_run.params(12)
    in_text, in_probe = (
        measure(params, text, quiet_run.config)[0].tokens_on[1]
        for text in (held_out, quiet_run.probe_tokens)
    )
    assert found.silent[1].tolist() == np.flatnonzero((in_text == 0) & (in_probe == 0)).tolist()
    assert found.seldom[1].tolist() == np.flatnonzero((in_text > 0) & (in_probe == 0)).tolist()
    assert set(range(10)) <= set(found.silent[1]) and len(found.seldom[1])
    assert np.all(found.since[1][:10] == 12)  # on at every probe before


def test_a_part_of_the_held_out_text_leaves_more_units_silent(quiet_run):
    every, part = silence(quiet_run), silence(quiet_run, tokens=64)
    assert part.n_tokens == 64 and set(every.silent[1]) < set(part.silent[1])
    on_probe = quiet_run.counts(12).tokens_on[1] > 0
    assert not on_probe[part.silent[1]].any() and not on_probe[part.seldom[1]].any()


def test_a_silence_began_at_the_first_of_the_silent_probes(quiet):
    run = mr.Run.open(quiet)
    for step in (1, 4, 8):  # not 2
        shutil.copy(run.counts_file(12), run.counts_file(step))
    assert np.all(silence(run).since[1][:10] == 4)
    assert np.all(silence(run, step=1).since[1][:10] == 1)


def test_the_command_wakes_what_can_be_woken_and_nothing_else(quiet, tmp_path):
    result = command("wake", quiet, "--units", 99, *OPTIONS[2:], "--json", "w.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    run = mr.Run.open(quiet)
    content = read_wake(run)
    assert content == json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))
    layers = {layer["layer"]: layer for layer in content["layers"]}
    units = {unit["unit"]: unit for unit in layers[1]["units"]["silent"]}
    assert layers[1]["silent"] == len(units) and set(range(10)) <= set(units)
    assert [units[j]["woken"] for j in range(5, 10)] == [False] * 5
    assert sum(units[j]["woken"] for j in range(5)) >= 4
    assert layers[1]["certified_silent"] == 5 and layers[1]["nearest_ratio"] < -1
    for unit in units.values():
        assert fires(run, 1, unit["unit"], unit["text"]) == unit["woken"]
        assert unit["as_text"] == run.tokenizer.decode(unit["text"])
        assert unit["margin_on_probe"] <= 0 and unit["silent_since"] == 12
        assert unit["tried"] <= 300 and len(unit["text"]) <= 16
    woken = {
        group: [unit["woken"] for layer in layers.values() for unit in layer["units"][group]]
        for group in ("seldom", "reachable", "unreachable")
    }
    for unit in (unit for layer in layers.values() for unit in layer["units"]["reachable"]):
        assert -0.3 < unit["margin_on_probe"] < 0 < unit["lowered"]
    assert all(woken["reachable"]) and not any(woken["unreachable"])
    assert np.mean(woken["seldom"]) > 0.8 and len(woken["seldom"]) > 4
    assert content["budget"]["texts"] == 300 and content["budget"]["length"] == 16
    assert content["corpus"]["sha256"] == run.corpus["sha256"] and content["made_with"]["numpy"]
    assert content["config"] == run.settings.tables() and content["step"] == 12

    counted = tally(list(units.values()))
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith("1 ")]
    assert row[1] == str(len(units)) and f"{100 * counted.share:.0f}" in row
    assert f"{content['tokens']:,} tokens" in result.stdout
    assert "certified 5 of" in result.stdout and "minirelu figure wake" in result.stdout
    assert "fires on  layer 1 unit " in result.stdout


def test_at_random_counts_the_silent_units_that_random_texts_wake(quiet):
    command("wake", quiet, "--layer", 1, "--budget", 500, "--length", 16, "--units", 1)
    (layer,) = read_wake(mr.Run.open(quiet))["layers"]
    assert 0 < layer["on_at_random"] <= layer["silent"] - 5


def test_the_same_seed_gives_the_same_file(quiet):
    file, contents = quiet / "death" / "wake.json", []
    for seed in (3, 3, 4):
        assert command("wake", quiet, *OPTIONS, "--seed", seed).returncode == 0
        contents.append(json.loads(file.read_text(encoding="utf-8")))
    assert contents[0] == contents[1]
    drawn_units = [
        [unit["unit"] for layer in content["layers"] for unit in layer["units"]["silent"]]
        for content in contents
    ]
    assert drawn_units[0] != drawn_units[2]
    assert all(len(layer["units"]["silent"]) <= 6 for layer in contents[0]["layers"])


def test_texts_cannot_steer_a_terminal(quiet, monkeypatch):
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: "\x1b[31m \u202e\n")
    result = command("wake", quiet, *OPTIONS)
    assert result.returncode == 0 and r"'\x1b[31m \u202e\n'" in result.stdout
    assert "\x1b" not in result.stdout and "\u202e" not in result.stdout


def test_mistakes_are_named(quiet, finished_run, tmp_path):
    def fails(*arguments, words):
        check_fails_plainly(command("wake", *arguments, cwd=tmp_path), *words)

    fails("nowhere", words=("no run in nowhere",))
    fails(quiet, "--step", 3, words=("no weights of step 3", "12"))
    fails(quiet, "--layer", 2, words=("--layer: 2 is not allowed", "0 to 1"))
    fails(quiet, "--units", 0, words=("--units: 0",))
    fails(quiet, "--seed", -1, words=("--seed: -1",))
    fails(quiet, "--budget", 0, words=("texts: 0 is not allowed",))
    fails(quiet, "--tokens", 3, words=("--tokens: 3", "16 tokens"))
    assert not (quiet / "death").exists()
    without = Path(shutil.copytree(finished_run.folder, tmp_path / "without"))
    shutil.rmtree(without / "checkpoints")
    fails(without, words=("has no checkpoint yet",))


def test_a_run_without_silent_units_is_said_to_have_none(finished_run):
    everyone = silence(finished_run, step=0)
    assert not any(map(len, everyone.silent))
    result = command("wake", finished_run.folder, "--step", 0)
    line = check_fails_plainly(result, "nothing to wake", "silent at step 0")
    assert f"{everyone.n_tokens:,} held-out tokens" in line


def test_the_figure_shows_the_shares(quiet):
    assert command("wake", quiet, *OPTIONS).returncode == 0
    run = mr.Run.open(quiet)
    result = command("figure", "wake", quiet, "--json", "f.json", cwd=quiet)
    assert result.returncode == 0, result.stderr
    data = json.loads((quiet / "f.json").read_text(encoding="utf-8"))
    left, right = data["panels"]
    layers = read_wake(run)["layers"]
    for layer, dot in zip(layers, left["lines"], strict=False):
        counted = tally(layer["units"]["silent"])
        assert dot["layer"] == [layer["layer"], 2]
        assert (dot["y"], dot["low"], dot["high"]) == (
            [counted.share], [counted.low], [counted.high],
        )  # fmt: skip
    for layer, curve in zip(layers, right["lines"], strict=False):
        tried = [unit["tried"] for unit in layer["units"]["silent"] if unit["woken"]]
        n = len(layer["units"]["silent"])
        assert curve["y"] == [sum(t <= x for t in tried) / n for x in curve["x"]]
        assert curve["x"][-1] == 300 and curve["y"][-1] == tally(layer["units"]["silent"]).share
    assert left["lines"][-1]["y"] == [layer["on_at_random"] / layer["silent"] for layer in layers]
    assert len(drawn(KINDS["wake"].draw(data))) == 2
    assert f"{read_wake(run)['tokens']:,} held-out tokens" in data["notes"][0]


def test_the_report_has_the_figure_only_of_a_run_whose_units_were_woken(quiet):
    run = mr.Run.open(quiet)
    assert "wake" not in figures_of(run)
    check_fails_plainly(command("figure", "wake", quiet), "no waking texts", "minirelu wake")
    assert command("wake", quiet, *OPTIONS).returncode == 0
    draw, caption = figures_of(run)["wake"]
    assert draw(run).axes and "silent" in caption


@pytest.mark.parametrize("text, words", [
    ("{", "damaged"), ("[]", "damaged"), ("{}", "damaged"), ('{"format": 9}', "of format 9"),
    ('{"format": 1, "layers": [{"units": {}}]}', "damaged"),
])  # fmt: skip
def test_damaged_results_are_named(quiet, text, words):
    (quiet / "death").mkdir()
    (quiet / "death" / "wake.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_wake(mr.Run.open(quiet))


def test_ages_are_in_order_and_leave_nobody_out():
    since = [0] * 3 + [8] * 2 + [64] * 10 + [128] + [256] * 4
    units = [{"woken": s < 8, "silent_since": s, "text": [1], "tried": s} for s in since]
    groups = by_age(units)
    assert [(first, last, t.tried) for first, last, t in groups] == [
        (0, 8, 5), (64, 64, 10), (128, 256, 5),
    ]  # fmt: skip
    assert [t.woken for *_, t in groups] == [3, 0, 0]
    assert by_age([]) == []
