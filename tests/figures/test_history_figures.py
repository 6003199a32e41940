"""Figures of a run with a history: what they draw are the numbers of the summary and life table."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from helpers import command

import minirelu as mr
from minirelu.death.history import History
from minirelu.death.life_histories import life_histories
from minirelu.death.summary import lives_of, summary
from minirelu.death.survival import first_deaths, life_table
from minirelu.death.transitions import rates
from minirelu.errors import UserError
from minirelu.figures import FIGURES, KINDS, OF_HISTORY, deaths, figures_of, raster


@pytest.fixture(scope="module")
def history(run_with_history) -> History:
    found = History.of(run_with_history)
    assert all(row["deaths"] > 5 and row["revivals"] > 2 for row in summary(found)["layers"])
    return found


def of_layer(data: dict, l: int, panel: int = 0) -> list[dict]:
    return [each for each in data["panels"][panel]["lines"] if each["layer"] == [l, 2]]


def test_silence_ends_at_the_shares_of_the_summary(history):
    data = KINDS["silence"].data([history.run])
    for l, row in enumerate(summary(history)["layers"]):
        silent, dead = of_layer(data, l)
        assert silent["x"] == dead["x"] == history.steps.tolist()
        assert (silent["y"][-1], dead["y"][-1]) == (row["silent_on_both"], row["dead"])
        assert dead["y"] == lives_of(history, l).dead.mean(axis=1).tolist()
        layer = history.layers[l]
        neither = (layer.tokens_on == 0) & (layer.confirm_on == 0)
        assert silent["y"] == neither.mean(axis=1).tolist()


def test_survival_is_that_of_the_life_table(history):
    data = KINDS["survival"].data([history.run])
    for l, row in enumerate(summary(history)["layers"]):
        (curve,) = of_layer(data, l)
        table = life_table(first_deaths(lives_of(history, l)))
        assert (curve["x"][0], curve["y"][0]) == (0, 1)
        assert curve["x"][1:] == table.end.tolist()
        assert curve["y"][1:] == table.survival.tolist() and curve["y"][-1] < 1
        assert [curve[k][-1] for k in ("y", "low", "high")] == row["survival"]


def test_hazard_is_deaths_over_units_alive_and_steps(history, monkeypatch):
    data = KINDS["hazard"].data([history.run])
    for l in range(2):
        (curve,) = of_layer(data, l)
        counted = rates(lives_of(history, l))
        expected = counted.deaths[:-2] / (counted.at_risk[:-2] * 4)  # none can be seen in the last
        np.testing.assert_allclose(curve["y"], expected)
        assert curve["x"] == (history.steps[:-3] + 2).tolist() and max(curve["y"]) > 0
    (rate,) = data["panels"][1]["lines"]
    assert rate["y"] == [r["lr"] for r in history.run.metrics("train")][: len(rate["x"])]
    assert data["panels"][1]["x"] == data["panels"][0]["x"]

    monkeypatch.setattr(deaths, "MOST_INTERVALS", 6)  # of 22: four at a time, and two
    (pooled,) = of_layer(KINDS["hazard"].data([history.run]), 1)
    assert len(pooled["y"]) == 6 and pooled["x"][0] == 8
    k, exposure = counted.deaths[4:8].sum(), 4 * counted.at_risk[4:8].sum()
    assert pooled["y"][1] == pytest.approx(k / exposure)


@pytest.mark.parametrize("rows", [32, 13])
def test_rows_of_the_raster_are_units_sorted_by_death_and_return(history, monkeypatch, rows):
    monkeypatch.setattr(raster, "MOST_ROWS", rows)
    for l, panel in enumerate(KINDS["raster"].data([history.run])["panels"]):
        lives, layer = lives_of(history, l), history.layers[l]
        assert len(set(panel["units"])) == rows and panel["steps"][-1] == 96
        for unit, row in zip(panel["units"], panel["z"], strict=True):
            for i, state in enumerate(row):
                assert state == (0 if layer.tokens_on[i, unit] else 2 if lives.dead[i, unit] else 1)
        born_silent = [bool(layer.tokens_on[0, unit] == 0) for unit in panel["units"]]
        n = sum(born_silent)
        assert all(born_silent[:n])
        first = [lives.first.high[unit] for unit in panel["units"][n:]]
        died = [high for high in first if high >= 0]
        assert first == sorted(died) + [-1] * (len(first) - len(died))
        together: dict[int, list[int]] = {}
        for unit in panel["units"][n : n + len(died)]:
            back = lives.first.back[unit]
            together.setdefault(lives.first.high[unit], []).append(99 if back < 0 else back)
        assert all(back == sorted(back, reverse=True) for back in together.values())


def test_the_raster_of_a_wide_layer_shows_units_at_even_ranks():
    """5000 units, of which 3000 die one after the other: 400 rows, in the same proportions."""
    F, P = 5000, 12
    death = np.where(np.arange(F) < 3000, 1 + np.arange(F) * 9 // 3000, P)
    shuffled = np.random.default_rng(0).permutation(F)
    on = (np.arange(P)[:, None] < death[shuffled]).astype(int)
    order = raster.by_death(life_histories(np.arange(P), on, on, 64), on == 0)
    assert (np.diff(death[shuffled][order]) >= 0).all()
    rows = order[raster.even_ranks(F, raster.MOST_ROWS)]
    assert len(set(rows.tolist())) == 400
    assert ((death[shuffled][rows] < P).sum()) == 240
    assert raster.even_ranks(7, 400).tolist() == list(range(7))


def test_colours_of_the_raster_differ_in_lightness_too():
    from matplotlib.colors import to_rgb

    light = [np.dot(to_rgb(c), (0.299, 0.587, 0.114)) for c in raster.STATES.values()]
    assert light[0] - light[1] > 0.25 and light[1] - light[2] > 0.25


def test_a_run_in_which_nobody_died_says_so(text_file, tmp_path):
    from helpers import new_run

    run = new_run(tmp_path, text_file, history_every=3, history_tokens=512, learning_rate=1e-6)
    assert mr.train(run)
    for name in OF_HISTORY:
        data = KINDS[name].data([run])
        assert "No unit of this run died." in data["notes"], name
        assert KINDS[name].draw(data)
    assert KINDS["survival"].data([run])["panels"][0]["lines"][0]["y"] == [1.0] * 5


def test_only_runs_with_a_history_have_its_figures(finished_run, run_with_history, tmp_path):
    assert figures_of(finished_run) == FIGURES and not set(FIGURES) & set(OF_HISTORY)
    assert list(figures_of(run_with_history)) == [*FIGURES, *OF_HISTORY]
    for name in OF_HISTORY:
        with pytest.raises(UserError, match="has no history of its units; train one with"):
            KINDS[name].data([finished_run])
        with pytest.raises(UserError, match=f"{name} takes one run with a history.*; 2 given"):
            KINDS[name].check(name, 2)
    result = command("figure", "survival", finished_run.folder)
    assert result.returncode == 2 and "--history-every 10" in result.stderr

    copy = mr.Run.open(shutil.copytree(run_with_history.folder, tmp_path / "copy"))
    shutil.rmtree(copy.folder / "history")
    assert figures_of(copy) == FIGURES
