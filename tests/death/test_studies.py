"""Studies: what is trained, what is refused, and that verdicts are written whole."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from conftest import make_study
from helpers import check_fails_plainly, command, new_run

import minirelu as mr
from minirelu.death.budget import CORE, configs, fit
from minirelu.death.experiments import EXPERIMENTS
from minirelu.death.experiments.replay import replayed, worst_window
from minirelu.death.experiments.twins import refuse_strangers
from minirelu.death.page import RESULTS, write_page
from minirelu.death.study import ARMS, Plan, Study
from minirelu.death.verdicts import EXPLANATIONS, read_result, write_result
from minirelu.errors import UserError
from minirelu.runs.markdown import marks
from minirelu.training.trainer import train

DONE = ("twins", "clock", "burst", "predict", "revive", "replay", "intervene")


@pytest.mark.parametrize("name", DONE)
def test_an_experiment_writes_a_whole_verdict(study, name):
    result = EXPERIMENTS[name].run(study)
    content = write_result(result, study)
    assert content == json.loads(
        (study.folder / "results" / f"{name}.json").read_text(encoding="utf-8")
    )
    assert set(content["predictions"]) == set(EXPLANATIONS)
    assert all(len(row["values"]) <= study.plan.seeds for row in content["rows"])
    assert all(set(row["says"]) <= {*EXPLANATIONS, "-"} for row in content["rows"])
    with open(study.folder / "results" / f"{name}.csv", encoding="utf-8") as f:
        assert len(list(csv.DictReader(f))) == len(content["rows"])
    for run in content["runs"]:
        assert run["corpus_sha256"] and run["made_with"]["numpy"] and run["step"] == 48
    assert content["conclusion"].endswith(".")


def test_what_is_trained_is_not_trained_again(study):
    assert study.missing(("base", "twin")) == []
    before = {f: f.stat().st_mtime_ns for f in study.folder.rglob("metrics.jsonl")}
    study.train(("base", "twin"))
    assert before == {f: f.stat().st_mtime_ns for f in study.folder.rglob("metrics.jsonl")}


def test_every_arm_can_be_built(study):
    for arm in ARMS:
        points = study.points(arm)
        assert len({p.name for p in points}) == study.plan.seeds
        changed = points[0].settings.differences(study.points("base")[0].settings)
        assert bool(changed) == (arm != "base")


def test_twins_share_weights_and_not_batches(study):
    for base, twin in zip(study.runs("base"), study.runs("twin"), strict=True):
        assert np.array_equal(base.params(0).flat, twin.params(0).flat)
        assert base.settings.train.batch_seed != twin.settings.train.batch_seed


def test_strangers_are_no_twins(study):
    base = study.runs("base")
    with pytest.raises(UserError, match="no twins: they have other initial weights"):
        refuse_strangers(base[0], base[1])
    with pytest.raises(UserError, match="no twins: they read the same batches"):
        refuse_strangers(base[0], base[0])


def test_two_runs_of_ones_own_are_compared(study):
    a, b = (study.runs(arm)[0].folder for arm in ("base", "twin"))
    result = command("death", "overlap", a, b)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) > 5
    check_fails_plainly(command("death", "overlap", a, a), "no twins")
    check_fails_plainly(command("death", "overlap", a, study.runs("base")[1].folder), "no twins")


def test_a_replay_that_changes_nothing_ends_as_the_run_did(study):
    run = study.runs("base")[0]
    window = worst_window(run)
    again = replayed(run, window, {})
    assert all(np.array_equal(a, b) for a, b in zip(again, window.silent, strict=True))
    frozen = replayed(run, window, {"intervene": ("freeze params=*",)})
    assert not any((f & a).any() for f, a in zip(frozen, window.alive, strict=True))


def test_a_swapped_batch_changes_that_step_and_what_follows(text_file, tmp_path):
    plain = new_run(tmp_path, text_file, "plain")
    swapped = new_run(tmp_path, text_file, "swapped", swap_batch=("5=500",))
    losses = []
    for run in (plain, swapped):
        train(run)
        losses.append([r["loss"] for r in run.metrics("train")])
    assert losses[0][:4] == losses[1][:4]
    assert losses[0][4] != losses[1][4]
    back = new_run(tmp_path, text_file, "back", swap_batch=("5=5",))
    train(back)
    assert [r["loss"] for r in back.metrics("train")] == losses[0]


@pytest.mark.parametrize("text", ["5", "5=", "=5", "0=5", "five=5", "5=-1"])
def test_a_swap_that_cannot_be_read_is_refused(text):
    with pytest.raises(UserError, match="is not like 120=5120"):
        mr.TrainConfig(swap_batch=(text,))


def test_another_study_is_not_mixed_in(study, text_file):
    with pytest.raises(UserError, match="holds another study.*learning_rate"):
        make_study(study.folder, text_file, plan={"swaps": 2}, learning_rate=0.2)
    with pytest.raises(UserError, match="holds another study.*flicker"):
        make_study(study.folder, text_file, plan={"swaps": 2, "flicker": 3.0})
    assert make_study(study.folder, text_file, plan={"swaps": 2}) == study


def test_mistakes_of_the_command_line(study, tmp_path):
    twins = ("death", "twins", "--out")
    check_fails_plainly(command(*twins, study.folder, "--flicker", 9), "another study", "flicker")
    check_fails_plainly(command(*twins, tmp_path / "new", "--seeds", 1), "seeds", "from 2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    check_fails_plainly(command(*twins, tmp_path / "full"), "not a study")
    check_fails_plainly(command("death", "all", "--budget", "soon"), "30m")
    check_fails_plainly(
        command("death", "all", "--budget", "1s", "--out", tmp_path / "x"),
        "--budget",
        "takes about",
    )


def test_a_study_where_nobody_dies_says_so(text_file, tmp_path):
    quiet = make_study(tmp_path / "quiet", text_file, learning_rate=1e-4)
    quiet.train(("base",))
    for name in ("burst", "revive", "approach"):
        with pytest.raises(UserError, match="died"):
            EXPERIMENTS[name].run(quiet)


def test_without_optimizer_states_the_option_is_named(text_file, tmp_path):
    bare = make_study(tmp_path / "bare", text_file, keep_optimizer_at=())
    bare.train(("base",))
    for run in bare.runs("base"):
        for state in sorted(run.checkpoints.glob("*/optimizer.safetensors"))[:-1]:
            state.unlink()
    with pytest.raises(UserError, match="--keep-optimizer-at"):
        EXPERIMENTS["replay"].run(bare)


def test_a_budget_gives_up_arms_before_size_and_size_before_seeds():
    sizes = configs()

    def chosen(minutes):
        by_layers = {6: 200.0, 4: 40.0, 2: 4.0}
        return fit(60 * minutes, 1, sizes, Plan(), lambda base: by_layers[base.model.n_layers])

    assert chosen(1000).arms == tuple(ARMS)
    assert chosen(1000).given_up == []
    assert (chosen(300).size, chosen(300).arms) == ("small", CORE)
    assert "redo" not in chosen(300).arms and "the arms beside" in chosen(300).given_up[0]
    assert chosen(100).size == "reduced"
    assert (chosen(2).size, chosen(2).plan.seeds) == ("tiny", 3)
    with pytest.raises(UserError, match="takes about"):
        chosen(0.1)


def test_a_page_gets_the_results_between_its_marks(study, tmp_path):
    if read_result(study, "revive") is None:
        write_result(EXPERIMENTS["revive"].run(study), study)
    page = tmp_path / "page.md"
    begin, end = marks(RESULTS)
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n", encoding="utf-8")
    assert write_page(page, [study], list(EXPERIMENTS)) >= 1
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before") and text.endswith("after\n") and "\nold\n" not in text
    assert "share that died once or more" in text
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(UserError, match="lacks the lines"):
        write_page(page, [study], list(EXPERIMENTS))


def test_a_study_that_is_damaged_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no study\.toml"):
        Study.open(tmp_path)
    (tmp_path / "study.toml").write_text("[study]\nseeds = 5\nhue = 3\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"study\.toml"):
        Study.open(tmp_path)
