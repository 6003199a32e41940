"""What training writes down of every unit: right, complete, and the same bits after a stop."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import check_fails_plainly, command, new_run, stop_after

import minirelu as mr
from minirelu.death.history import History
from minirelu.death.summary import lives_of, summary
from minirelu.errors import UserError
from minirelu.model.transformer import forward
from minirelu.runs.history import SLOW, read_history
from minirelu.text.batches import make_probe, make_second_probe
from minirelu.training.schedule import history_steps


@pytest.fixture(scope="module", params=["auto", "reference"])
def run(request, text_file, tmp_path_factory) -> mr.Run:
    folder = tmp_path_factory.mktemp("history")
    run = new_run(folder, text_file, history_every=2, history_tokens=512, compute=request.param)
    mr.train(run)
    return run


def test_a_record_is_what_the_activations_say(run):
    history = History.of(run)
    assert list(history.steps) == list(range(0, 13, 2))
    assert list(history.slow_steps) == [0, 8]
    params = run.params(8)
    for text, counts in ((run.probe_tokens, "probe"), (run.confirming_tokens, "more")):
        _, acts = forward(params, text[:, :-1], run.config)
        for l, layer in enumerate(history.layers):
            pre, post = (acts[f"blocks.{l}.mlp.hook_{name}"] for name in ("pre", "post"))
            on = post > 0
            if counts == "more":
                assert np.array_equal(layer.confirm_on[4], on.any(axis=1).sum(axis=0))
                continue
            assert np.array_equal(layer.tokens_on[4], on.sum(axis=(0, 1)))
            assert np.array_equal(layer.sequences_on[4], on.any(axis=1).sum(axis=0))
            np.testing.assert_allclose(layer.margin[4], pre.max(axis=(0, 1)), rtol=2e-3, atol=1e-3)
            np.testing.assert_allclose(
                layer.slow["mean_post"][1], post.mean(axis=(0, 1)), rtol=2e-3, atol=1e-4
            )
            x = acts[f"blocks.{l}.ln2.hook_normalized"].reshape(-1, run.config.d_model).mean(axis=0)
            W_in = params[f"blocks.{l}.mlp.W_in"]
            norm = np.linalg.norm(W_in, axis=1)
            np.testing.assert_allclose(layer.slow["norm"][1], norm, rtol=2e-3)
            cosine = W_in @ x / norm / np.linalg.norm(x)
            np.testing.assert_allclose(layer.slow["alignment"][1], cosine, rtol=2e-3, atol=2e-3)
            bias = params[f"blocks.{l}.mlp.b_in"]
            np.testing.assert_allclose(layer.slow["bias"][1], bias, rtol=2e-3, atol=1e-4)
    assert set(history.layers[0].slow) == set(SLOW)
    assert (history.layers[0].slow["second_moment"][0] == -20).all()  # nothing seen yet
    assert (history.layers[0].slow["second_moment"][1] > -20).any()


def test_a_stopped_training_writes_the_same_history(text_file, tmp_path):
    whole, stopped = (
        new_run(tmp_path, text_file, name, history_every=3, history_tokens=512)
        for name in ("whole", "stopped")
    )
    mr.train(whole)
    assert not mr.train(stopped, should_stop=stop_after(5))
    assert mr.train(stopped)
    for step in history_steps(whole.settings.train):
        a, b = (read_history(r.history_file(step), r.config) for r in (whole, stopped))
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_branch_takes_the_history_along(text_file, tmp_path):
    parent = new_run(
        tmp_path, text_file, history_every=2, history_tokens=512, keep_optimizer_at=(4,)
    )
    mr.train(parent)
    child = mr.branch(parent, 4, parent.settings, tmp_path / "child")
    assert list(History.of(child).steps) == [0, 2, 4]


def test_the_confirming_text_shares_nothing_with_the_probe():
    tokens = np.arange(5000)
    for n_ctx, n in ((7, 13), (16, 40), (99, 3)):
        probe = make_probe(tokens, n * n_ctx, n_ctx)
        more = make_second_probe(tokens, len(probe), 4 * n * n_ctx, n_ctx)
        assert len(more) >= 2 * n
        assert not np.intersect1d(probe, more).size
        assert len(np.unique(more)) == more.size


def test_without_text_beside_the_probe_there_is_no_history(text_file, tmp_path):
    run = new_run(tmp_path, text_file, history_every=2, probe_tokens=1 << 20)
    with pytest.raises(UserError, match="fewer --probe-tokens"):
        mr.train(run)


def test_a_run_without_history_says_how_to_get_one(finished_run):
    result = command("death", "history", finished_run.folder)
    check_fails_plainly(result, "--history-every")


def test_a_damaged_record_is_named(run, tmp_path, text_file):
    other = new_run(tmp_path, text_file, history_every=4, history_tokens=512)
    mr.train(other)
    file = other.history_file(4)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(UserError, match="step_000004"):
        History.of(other)
    file.unlink()
    with pytest.raises(UserError, match="step_000004"):
        History.of(other)
    with np.load(other.history_file(8)) as arrays:
        changed = dict(arrays)
    changed["tokens_on.0"] = changed["tokens_on.0"][:-1]
    np.savez(file, **changed)
    with pytest.raises(UserError, match=r"step_000004.*tokens_on\.0"):
        History.of(other)


def test_the_command_prints_what_the_summary_says(study):
    run = study.runs("base")[0]
    result = command("death", "history", run.folder)
    assert result.returncode == 0, result.stderr
    numbers = summary(History.of(run))
    rows = [
        line.split()
        for line in result.stdout.splitlines()
        if line.split(maxsplit=1)[:1] and line.split()[0].isdecimal()
    ]
    L = len(numbers["layers"])
    assert len(rows) == 2 * L  # and the definitions
    for cells, layer in zip(rows[:L], numbers["layers"], strict=True):
        assert f"{100 * layer['dead']:.1f}" in cells
        assert f"{100 * layer['died']:.1f}" in cells
    assert (run.folder / "death" / "history.json").is_file()
    lives = lives_of(History.of(run), 0)
    assert numbers["layers"][0]["deaths"] == len(lives.deaths.unit) > 0


def test_too_few_records_are_said(study):
    run = study.runs("base")[0]
    with pytest.raises(UserError, match="records"):
        History.of(run, at_least=1000)
