"""Branches: the parent's bits unless something is changed, and a child that knows its parent."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import check_fails_plainly, command, new_run, result, stop_after

import minirelu as mr
from minirelu.errors import UserError
from minirelu.runs import prepare
from minirelu.training import trainer


@pytest.fixture(scope="module")
def parent(text_file, tmp_path_factory) -> mr.Run:
    run = new_run(tmp_path_factory.mktemp("parent"), text_file, keep_optimizer_at=(3, 4))
    assert mr.train(run)
    return run


def changed(settings: mr.Config, **train) -> mr.Config:
    tables = settings.tables()
    tables["train"] |= train
    return mr.Config.from_tables(tables)


@pytest.mark.parametrize("step", [3, 4, 8])
def test_with_nothing_changed_a_branch_ends_with_its_parent_s_bits(parent, step, tmp_path):
    child = mr.branch(parent, step, parent.settings, tmp_path / "child")
    assert child.probes() == [p for p in parent.probes() if p["step"] <= step]
    assert not mr.train(child, should_stop=stop_after(2))  # also when it is interrupted
    assert mr.train(child)
    assert result(child) == result(parent)
    assert child.parent["run"] == parent.name and child.parent["step"] == step
    assert child.parent["changed"] == [] and parent.parent is None


def test_a_branch_may_have_other_batches(parent, tmp_path):
    settings = changed(parent.settings, data_seed=7)
    child = mr.branch(parent, 4, settings, tmp_path / "child")
    assert mr.train(child)
    of_child, of_parent = child.metrics("train"), parent.metrics("train")
    strip = [[r["loss"] for r in records] for records in (of_child, of_parent)]
    assert strip[0][:4] == strip[1][:4]
    assert all(a != b for a, b in zip(strip[0][4:], strip[1][4:], strict=True))
    assert child.parent["changed"] == ["train.data_seed: 7, not -1"]
    twin = mr.branch(parent, 4, settings, tmp_path / "twin")
    assert mr.train(twin)
    assert result(twin) == result(child)


def test_a_branch_may_have_more_steps_another_optimizer_and_interventions(parent, tmp_path):
    settings = changed(
        parent.settings, steps=15, optimizer="sgd", intervene=["freeze params=embed.*"]
    )
    child = mr.branch(parent, 8, settings, tmp_path / "child")
    assert mr.train(child)
    assert child.metrics("train")[-1]["step"] == 15
    assert np.array_equal(child.params()["embed.W_E"], parent.params(8)["embed.W_E"])
    assert not np.array_equal(child.params()["ln_final.w"], parent.params(8)["ln_final.w"])


@pytest.mark.parametrize(
    "step, train, words",
    [
        (2, {}, "no optimizer state of step 2 to branch off at; steps that have it: 3, 4, 8, 12."),
        (4, {"seed": 1}, "for other batches give --data-seed"),
        (4, {"probe_tokens": 64}, "probe_tokens: a branch keeps its parent's 256"),
        (8, {"steps": 8}, "leaves nothing to do after step 8"),
    ],
)
def test_impossible_branches_are_refused(parent, step, train, words, tmp_path):
    with pytest.raises(UserError) as e:
        mr.branch(parent, step, changed(parent.settings, **train), tmp_path / "child")
    assert words in str(e.value)
    assert not (tmp_path / "child").exists()


def test_branching_by_command(parent, tmp_path):
    done = command("train", "--from", parent.folder, "--at", 8, "--out", tmp_path / "child")
    assert done.returncode == 0, done.stderr
    assert "nothing changed: the same bits" in done.stdout
    assert result(mr.Run.open(tmp_path / "child")) == result(parent)
    check_fails_plainly(command("train", "--from", parent.folder), "--at STEP")
    check_fails_plainly(
        command("train", "--from", parent.folder, "--at", 2), "steps that have it: 3, 4, 8, 12"
    )
    check_fails_plainly(
        command("train", "--from", parent.folder, "--at", 4, "--preset", "tiny"), "--preset"
    )


def test_a_branch_made_by_other_code_says_so_from_its_step_on(parent, tmp_path, monkeypatch):
    """Its first steps are still those of the parent's code."""
    for module in (prepare, trainer):
        monkeypatch.setattr(module, "source_digest", lambda: "0123456789ab")
    child = mr.branch(parent, 4, parent.settings, tmp_path / "child")
    assert mr.train(child)
    assert child.code == [parent.code[0], (4, "0123456789ab")]
