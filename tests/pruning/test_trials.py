"""Trials of pruning and of advised widths, small: who is trained how, and what is compared."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import check_fails_plainly, command, new_run

import minirelu as mr
from minirelu.config import Config
from minirelu.intervals import over_seeds
from minirelu.pruning import capacity as planning
from minirelu.pruning import trial as trials
from minirelu.pruning.capacity import advised_widths, capacity_of, with_widths
from minirelu.pruning.curves import quality
from minirelu.pruning.texts import trained_on


@pytest.fixture(scope="module")
def parents(text_file, tmp_path_factory) -> list[mr.Run]:
    folder = tmp_path_factory.mktemp("parents")
    runs = [
        new_run(folder, text_file, f"seed{seed}", learning_rate=0.05, seed=seed) for seed in (0, 1)
    ]
    assert all(mr.train(run) for run in runs)
    return runs


@pytest.fixture
def quick(monkeypatch):
    """Times are not measured: the small model is thrice as fast, later twice; units weigh alike."""
    monkeypatch.setattr(trials, "time_ratio", lambda large, small, run: (3.0, 2.0))
    monkeypatch.setattr(trials, "DENSE_STEPS", 4)
    monkeypatch.setattr(
        planning, "step_seconds", lambda models, *_: [float(p.flat.size) for p in models]
    )


def test_a_trial_of_pruning_spends_the_budget_in_five_ways(parents, tmp_path, quick):
    options = ("--share", 0.5, "--fine-tune", 3, "--tokens", 256, "--trial", "trial")
    folders = [run.folder for run in parents]
    done = command("prune", *folders, *options, "--json", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    arms = {row["arm"]: row for row in found["arms"]}
    assert list(arms) == ["unpruned", "pruned", "random", "scratch steps", "scratch time"]
    assert {name: row["steps"] for name, row in arms.items()} == {
        "unpruned": [15, 15], "pruned": [15, 15], "random": [15, 15],
        "scratch steps": [15, 15], "scratch time": [4 * 3 + 8 * 2 + 3] * 2,
    }  # fmt: skip
    for name, row in arms.items():
        whole = name == "unpruned"
        assert [sum(w) for w in row["widths"]] == [64 if whole else 32] * 2
        assert row["widths"] == arms["pruned"]["widths"] or whole
        for seed, loss in enumerate(row["loss"]):
            run = mr.Run.open(tmp_path / "trial" / f"{name},seed={seed}")
            at_end = quality(run.params(), run.held_out(256), run.config)
            assert loss == pytest.approx(at_end.loss) and run.steps[-1] == row["steps"][seed]
            begins = run.parent["run"] if run.parent else None
            assert begins == (None if "scratch" in name else f"seed{seed}")
        difference = np.subtract(row["loss"], arms["pruned"]["loss"])
        mean, low, high = over_seeds(difference)
        assert row["against"] == {"base": "pruned", "mean": mean, "low": low, "high": high}
    kept = [
        json.loads((tmp_path / "trial" / f"{name},seed=0" / "kept_units.json").read_text("utf-8"))
        for name in ("pruned", "random")
    ]
    assert kept[0] != kept[1]

    weights = (tmp_path / "trial" / "pruned,seed=0" / "metrics.jsonl").stat().st_mtime_ns
    again = command("prune", *folders, *options, cwd=tmp_path)
    assert again.returncode == 0 and "trained  " not in again.stdout
    assert weights == (tmp_path / "trial" / "pruned,seed=0" / "metrics.jsonl").stat().st_mtime_ns
    other = (*options[:-2], "--by", "frequency", "--trial", "trial")
    check_fails_plainly(
        command("prune", *folders, *other, cwd=tmp_path), "holds another trial (other by)"
    )
    check_fails_plainly(
        command("prune", *folders, *options[:-1], ".", cwd=tmp_path), "is not a trial"
    )


def test_capacity_counts_what_layers_use_and_need(parents):
    run = parents[0]
    found = capacity_of(run, 0.01, "contribution", 256)
    text = run.held_out(256)
    _, acts = mr.forward(run.params(), text[:, :-1], run.config)
    base = quality(run.params(), text, run.config).loss
    for l, row in enumerate(found["layers"]):
        on = (acts[f"blocks.{l}.mlp.hook_post"] > 0).any(axis=(0, 1))
        assert row["used"] == on.sum() <= row["chao1"] <= row["d_mlp"] == 32
        assert sorted(row["needed"], reverse=True) == row["needed"]
        assert row["advised"] % 8 == 0 or row["advised"] == 32
    assert found["loss"] == pytest.approx(base)
    assert found["advised_loss"] <= 1.01 * base  # rounded up from what is within the limit
    settings = Config.from_toml(found["toml"])
    assert list(settings.model.mlp_widths) == [row["advised"] for row in found["layers"]]
    assert settings.train == run.settings.train
    parameters = found["savings"][0]
    assert parameters["now"] == run.params().flat.size
    assert parameters["advised"] == mr.init_params(settings.model).flat.size
    assert not np.array_equal(trained_on(run, 256), text)


def test_the_advice_can_be_trained(parents, tmp_path):
    done = command(
        "capacity", parents[0].folder, "--tokens", 256, "--out", "next.toml", "--figure", "f.png",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = command("train", "--config", "next.toml", "--steps", 2, "--out", "next", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    given = Config.build(file=tmp_path / "next.toml").model.mlp_widths
    assert mr.Run.open(tmp_path / "next").config.mlp_widths == given


def test_a_trial_of_the_advice_has_four_shapes_and_other_seeds(parents, tmp_path, quick):
    options = ("--tokens", 256, "--within", 2, "--trial", "trial", "--seeds", 2)
    done = command("capacity", parents[0].folder, *options, "--json", "f.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))["arms"]
    shapes = {row["arm"]: row["widths"][0] for row in rows}
    assert shapes["as before"] == [32, 32]
    assert len(set(shapes["same parameters"])) == len(set(shapes["same time"])) == 1
    assert abs(2 * shapes["same parameters"][0] - sum(shapes["advised"])) <= 1
    # in this test time goes by parameters, so that both uniform widths are the same
    assert abs(shapes["same time"][0] - shapes["same parameters"][0]) <= 1
    assert all(row["seeds"] == [1, 2] and row["steps"] == [12, 12] for row in rows)
    for row in rows:
        run = mr.Run.open(tmp_path / "trial" / f"{row['arm']},seed=2")
        assert run.settings.train.seed == 2 and run.parent is None
    assert {row["against"]["base"] for row in rows} == {"advised"}


def test_widths_are_advised_in_eights():
    assert advised_widths([0, 1, 8, 9, 31, 32], [32] * 6) == (8, 8, 8, 16, 32, 32)
    assert advised_widths([3], [5]) == (5,)
    settings = Config.build("tiny")
    assert with_widths(settings, [16, 16]).model.d_mlp == 16
    assert with_widths(settings, [16, 8]).model.d_mlp == (16, 8)


@pytest.mark.parametrize(
    "options, words",
    [
        (["nowhere"], ["no run in nowhere"]),
        (["RUN", "--tokens", 0], ["--tokens: 0"]),
        (["RUN", "--within", -1], ["--within: -1"]),
        (["RUN", "--by", "size"], ["there is no criterion 'size'"]),
        (["RUN", "--trial", "x", "--seeds", 0], ["--seeds: 0"]),
        (["RUN", "--tokens", 64, "--page", "no.md"], ["cannot read no.md"]),
    ],
)
def test_mistakes_get_one_plain_line(parents, options, words, tmp_path):
    given = [parents[0].folder if o == "RUN" else o for o in options]
    check_fails_plainly(command("capacity", *given, cwd=tmp_path), *words)
