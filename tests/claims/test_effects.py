"""Main effects: planted ones are found again, with intervals that hold what they promise."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from helpers import command

import minirelu as mr
from minirelu.claims.effects import (
    Response,
    clear,
    effects_of,
    is_balanced,
    main_effects,
    responses,
    table_of,
    used_on,
)
from minirelu.figures.effects import effects as drawn
from minirelu.sweeps.design import signs_of_fraction
from minirelu.sweeps.running import run_sweep
from minirelu.sweeps.sweep import Sweep

PLANTED = np.array([4.0, 0, -2, 0, 0, 1, 0, 0])


def test_planted_effects_are_found_exactly_where_nothing_else_varies():
    signs = signs_of_fraction(8, 16)
    found = main_effects(signs, 10 + signs @ PLANTED / 2)
    assert np.allclose([e.value for e in found], PLANTED)
    assert np.allclose([e.high - e.low for e in found], 0, atol=1e-9)


def test_intervals_hold_the_planted_effects_as_often_as_they_say():
    signs, rng, held, clear_of_0 = signs_of_fraction(8, 16), np.random.default_rng(0), [], []
    for _ in range(400):
        found = main_effects(signs, signs @ PLANTED / 2 + rng.standard_normal(16))
        held += [e.low <= planted <= e.high for e, planted in zip(found, PLANTED, strict=True)]
        clear_of_0 += [clear(found[i]._asdict()) for i in (1, 3, 4, 6, 7)]
    assert 0.93 < np.mean(held) < 0.97 and 0.03 < np.mean(clear_of_0) < 0.07


def test_what_settings_do_together_widens_the_intervals_and_moves_no_effect():
    signs = signs_of_fraction(8, 16)
    found = main_effects(signs, signs @ PLANTED / 2 + 3 * signs[:, 1] * signs[:, 3])
    assert np.allclose([e.value for e in found], PLANTED)
    assert all(e.high - e.low > 2 for e in found)


def test_an_unbalanced_design_is_estimated_by_least_squares():
    levels = np.array([[-1, -1], [-1, -1], [1, -1], [1, -1], [1, 1], [-1, 1], [1, 1]])
    found = main_effects(levels, levels @ np.array([1.0, -3]) + 5)
    assert np.allclose([e.value for e in found], [2, -6])


def test_a_constant_has_no_effect_however_many_runs_are_missing():
    signs = signs_of_fraction(12, 32)
    for n in range(14, 33):
        rows = signs[np.random.default_rng(n).permutation(32)[:n]]
        if np.linalg.matrix_rank(np.column_stack([np.ones(n), rows])) == 13:
            assert not any(clear(e._asdict()) for e in main_effects(rows, np.full(n, 0.7)))


def test_a_design_is_balanced_only_if_each_setting_is_as_often_high_as_low():
    assert is_balanced(signs_of_fraction(8, 16))
    assert not is_balanced(np.array([[-1, -1, -1], [-1, -1, 1], [-1, 1, -1], [-1, 1, 1]]))


def test_what_cannot_be_compared_is_left_out():
    names = [r.name for r in responses()]
    assert {"loss", "layer 0, sequence"} <= set(names)
    assert "loss" not in [r.name for r in responses({"d_vocab": (300, 400)})]
    assert "layer 0, sequence" not in [r.name for r in responses(["n_ctx"])]


def test_too_few_combinations_and_settings_that_change_together_are_refused():
    with pytest.raises(mr.UserError, match="3 combinations are trained, and .* need 4"):
        main_effects(np.array([[-1, -1], [1, 1], [1, -1]]), np.zeros(3))
    with pytest.raises(mr.UserError, match="change together in all runs"):
        main_effects(np.array([[-1, -1], [1, 1]] * 2), np.zeros(4))


@pytest.fixture(scope="module")
def screened(text_file, tmp_path_factory):
    """A grid of two settings, two seeds of each, three layers."""
    options = {
        "model": dict(n_layers=3, n_heads=2, d_model=16, n_ctx=16, d_vocab=300),
        "text": dict(corpus=str(text_file)),
        "train": dict(steps=8, batch_size=4, probe_tokens=256, warmup_steps=2),
    }
    vary = {"d_mlp": (24, 40), "bias": (True, False)}
    folder, sweep = tmp_path_factory.mktemp("sweeps") / "screen", None
    sweep = Sweep.build("tiny", None, options, vary, 2)
    assert run_sweep(sweep, folder) == {}
    return folder, sweep


def test_effects_are_told_of_means_over_seeds(screened):
    """A response that is known for every run: width counts, the seed does not."""
    from minirelu.sweeps.folder import finished_runs

    folder, sweep = screened
    width = Response(
        "w", "", lambda run: run.config.d_mlp + (9 if run.settings.train.seed else -9), False
    )
    found = effects_of(sweep, finished_runs(folder, sweep), [width])
    assert found["combinations"] == 4 and found["balanced"]
    of_width, of_bias = (s["effects"][0] for s in found["settings"])
    assert of_width["value"] == pytest.approx(16) and clear(of_width)
    assert of_bias["value"] == pytest.approx(0) and len(found["values"]) == 8
    data = drawn({**found, "runs": []})
    assert [len(p["lines"]) for p in data["panels"]] == [3]
    assert table_of(found)[1][:4] == ["d_mlp", "24", "40", "+16.000 ± 0.000*"]


def test_the_use_of_a_long_text_is_counted_once_and_kept(screened):
    folder, sweep = screened
    run = mr.Run.open(folder / sweep.points()[0].name)
    used = used_on(run, 4000)
    kept = json.loads((run.folder / "used.json").read_text(encoding="utf-8"))
    assert kept["used"] == used and 3000 < kept["read"] <= 4000 and len(used) == 3
    (run.folder / "used.json").write_text(json.dumps({**kept, "used": [0, 0, 0]}), encoding="utf-8")
    assert used_on(run, 4000) == [0, 0, 0]
    assert used_on(run, 64) != [0, 0, 0]  # another text
    assert used_on(run, 4000) == used


def test_the_command_prints_writes_and_draws(screened, tmp_path):
    folder, _ = screened
    page = tmp_path / "page.md"
    page.write_text("<!-- effects: begin -->\n<!-- effects: end -->\n", encoding="utf-8")
    done = command("effects", folder, "--json", tmp_path / "e.json",
                   "--figure", tmp_path / "e.png", "--page", page, "--tokens", 2000)  # fmt: skip
    assert done.returncode == 0 and "4 combinations of 2 settings, balanced" in done.stdout
    content = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    names = [r["name"] for r in content["responses"]]
    assert names == [r.name for r in responses((), 2000)] and "layer 0, 2,000" in names
    with open(folder / "sweep.csv", encoding="utf-8", newline="") as f:
        rows = [row for row in csv.DictReader(f) if row["layer"] == "0"]
    low, high = (
        np.mean([float(r["per_token"]) for r in rows if r["d_mlp"] == d]) for d in ("24", "40")
    )
    effect = content["settings"][0]["effects"][0]
    assert effect["value"] == pytest.approx(high - low) and effect["low"] < effect["value"]
    assert (tmp_path / "e.png").stat().st_size > 5000
    assert "| d_mlp | 24 | 40 |" in page.read_text(encoding="utf-8")


def test_effects_of_a_setting_with_more_values_are_refused(tmp_path):
    sweep = Sweep.build("tiny", vary={"d_mlp": (24, 40, 48)}, seeds=1)
    (tmp_path / "sweep.toml").write_text(sweep.to_toml(), encoding="utf-8")
    done = command("effects", tmp_path)
    assert done.returncode == 2 and "two values; d_mlp has 3" in done.stderr
