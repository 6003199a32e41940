"""The number of each claim, on trainings where it is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import minirelu as mr
from minirelu.claims import across, probes, units
from minirelu.claims.answers import ask_family, ask_runs
from minirelu.claims.claims import CLAIMS
from minirelu.claims.deaths import statistic
from minirelu.claims.probes import BACK_BY, Missing, dip_and_back, too_short
from minirelu.death.plan import Plan
from minirelu.death.study import Study
from minirelu.errors import UserError
from minirelu.specificity.layers import NUMBERS


def test_what_the_last_probe_says(trained_to):
    run = trained_to([0.2, 0.4, 0.6, 0.9])
    assert probes.range_of_layers(run) == pytest.approx((0.7, 0.0))
    assert probes.first_layer(run) == pytest.approx((0.2, 1.0))
    assert probes.last_layer(run) == pytest.approx((0.9, 0.4))
    assert probes.last_minus_first("per_token")(run) == pytest.approx((0.7, 0.0))
    assert probes.last_minus_middle(run) == pytest.approx((0.4, 0.0))
    assert probes.what_is_left(run) == pytest.approx((0.525, 1.0))


def test_nulls_are_read_at_step_0(trained_to):
    rows = [[0.9, 0.5, 0.8]] + [[0.1, 0.2, 0.3]] * 6
    run = trained_to([1, 1, 1], courses={"per_batch": rows})
    assert probes.range_of_layers(run) == pytest.approx((0.2, 0.4))
    assert probes.first_layer(run).null == 0.9
    assert probes.last_minus_first("per_batch")(run) == pytest.approx((0.2, -0.1))
    assert probes.last_minus_middle(run) == pytest.approx((0.1, 0.3))


def test_a_fall_at_once_is_told_from_a_gradual_one(trained_to):
    even = trained_to([0.4], courses={"per_token": [[1 - 0.1 * i] for i in range(7)]})
    assert probes.largest_fall(even) == pytest.approx((1 / 6, 1 / 6))
    sudden = trained_to([0.4], courses={"per_token": [[1]] * 4 + [[0.05]] * 2 + [[0.0]]})
    assert probes.largest_fall(sudden).value == pytest.approx(0.95)
    rising = trained_to([0.4], courses={"per_token": [[0.1 * i] for i in range(1, 8)]})
    assert math.isnan(probes.largest_fall(rising).value)


def test_a_dip_must_be_early_deep_and_back():
    steps = np.array([0, 16, 64, 128, 256, 512])

    def dip(*values):
        return dip_and_back(steps, np.array(values))

    assert dip(0.9, 0.7, 0.5, 0.6, 0.8, 0.2) == pytest.approx(0.3)
    assert dip(0.9, 0.7, 0.5, 0.5, 0.4, 0.9) == 0  # it is not back by step 256
    assert dip(0.9, 0.9, 0.9, 0.2, 0.9, 0.9) == 0  # not early
    assert dip(0.5, 0.6, 0.7, 0.8, 0.9, 0.9) == pytest.approx(-0.1)  # the opposite: a rise
    with pytest.raises(Missing, match="first 64 steps"):
        dip_and_back(np.array([0, 128]), np.ones(2))


def test_dip_and_peak_are_of_the_mean_over_layers(trained_to):
    dip = [[1, 1], [0.8, 0.6], [1, 0.4]] + [[1, 0.8]] * 4
    peak = [[0.5, 0.5], [0.5, 0.9]] + [[0.3, 0.5]] * 5
    run = trained_to(
        [1, 1], courses={"per_sequence": dip, "median_in_sequence_used": peak}
    )  # fmt: skip
    assert probes.dip_per_sequence(run).value == pytest.approx(0.2)
    assert probes.peak_of_median(run).value == pytest.approx(0.2)


def test_the_late_shift_is_from_the_middle_on(trained_to):
    rows = [[1, 1, 1]] * 4 + [[0.9, 0.5, 0.5]] + [[0.8, 0.6, 0.4]] + [[0.6, 0.6, 0.6]]
    run = trained_to([1, 1, 1], courses={"per_sequence": rows})  # 128 is the last up to 200
    assert probes.late_shift_of_first(run) == pytest.approx((-0.3, 0.1))


def test_runs_without_a_probe_or_a_layer_cannot_answer(trained_to):
    with pytest.raises(Missing, match=r"3 layers or more.*has 2.*--n-layers"):
        probes.last_minus_middle(trained_to([0.5, 0.5]))
    with pytest.raises(Missing, match=r"2 layers or more.*has 1"):
        probes.last_layer(trained_to([0.5]))
    with pytest.raises(Missing, match="probe at step 0.*begin at step 64"):
        probes.range_of_layers(trained_to([0.5, 0.5], steps=(64, 400)))
    run = trained_to([0.5, 0.5])
    file = run.folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").replace('"per_batch"', '"other"')
    file.write_text(lines, encoding="utf-8")
    with pytest.raises(Missing, match="lack"):
        probes.first_layer(run)


def test_a_model_that_has_learned_nothing_is_too_young(trained_to):
    unigram = trained_to([0.5]).corpus["baselines"]["unigram"]
    assert too_short(trained_to([0.5], loss=unigram - 0.01)) == ""
    assert "not below what token frequencies give" in too_short(trained_to([0.5], loss=unigram))
    assert "64 steps, not 256" in too_short(trained_to([0.5], steps=(0, 64)), BACK_BY)


def test_width_is_a_slope_per_doubling(trained_to):
    family = [
        trained_to([0.8 - 0.1 * i, 0.6 - 0.1 * i], d_mlp=32 * 4**i) for i in range(3)
    ]  # two doublings each
    assert across.slope_with_width("per_batch")(family) == pytest.approx((-0.05, 0.0))


def test_depth_takes_the_weakest_difference(trained_to):
    def value(*ends):
        return across.weakest_with_depth([trained_to(end) for end in ends]).value

    assert value([0.2, 0.9], [0.2, 0.5, 0.4]) == pytest.approx(0.2)
    assert value([0.9, 0.2], [0.4, 0.5, 0.1]) == pytest.approx(-0.3)
    assert value([0.2, 0.9], [0.5, 0.5, 0.4]) == 0


def test_families_are_of_seeds_that_every_group_has(trained_to):
    slope = {0: 0.1, 1: 0.2, 2: 0.3}
    groups = [
        [trained_to([0.9 - slope[s] * i] * 2, seed=s, d_mlp=32 * 2**i) for s in seeds]
        for i, seeds in enumerate([(0, 1, 2), (1, 0)])
    ]
    answer = ask_family(CLAIMS["width-per-batch"], groups)
    values = {seed: reading.value for seed, reading in answer.readings.items()}
    assert values == pytest.approx({0: -0.1, 1: -0.2})
    assert answer.reason == ""
    young = [[trained_to([0.5], seed=s, d_mlp=F, loss=9.0) for s in (0, 1)] for F in (32, 64)]
    assert "too short" in ask_family(CLAIMS["width-per-batch"], [groups[0], young[1]]).reason
    for lacking in ([groups[0]], [groups[0][:1], groups[1][:1]]):
        with pytest.raises(Missing):
            ask_family(CLAIMS["width-per-batch"], lacking)


def test_a_seed_counts_once(trained_to):
    with pytest.raises(UserError, match="same seed"):
        ask_runs(CLAIMS["use-falls"], [trained_to([0.2]), trained_to([0.2])])


def test_units_that_write_nothing_are_ranked_first(run_with_history, monkeypatch):
    """Half of the units write nothing, the others much: which go is all that matters."""
    params = run_with_history.params()
    for l in range(2):
        W_out = params[f"blocks.{l}.mlp.W_out"]
        W_out[::2], W_out[1::2] = 0, 3 * W_out[1::2]
    monkeypatch.setattr(mr.Run, "params", lambda *_: params)
    ranked, random = units.removable_units(run_with_history)
    assert ranked >= 0.5 and ranked - random > 0.1


def test_specificity_is_read_at_the_last_step(trained_to):
    run = trained_to([0.5, 0.5, 0.5])

    def write(step, *tokens):
        layers = [{**dict.fromkeys(NUMBERS, 1.0), "effective_tokens": n} for n in tokens]
        results = {"results": [{"step": step, "tokens": 9, "layers": layers}]}
        (run.folder / "specificity.json").write_text(json.dumps(results), encoding="utf-8")

    with pytest.raises(Missing, match="minirelu specificity"):
        units.specificity_of_ends(run)
    write(400, 30.0, 7.0, 90.0)
    assert units.specificity_of_ends(run) == (3.0, 1.0)
    write(400, 90.0, 7.0, 30.0)
    assert units.specificity_of_ends(run).value == 3.0
    write(400, None, 7.0, 30.0)
    assert math.isnan(units.specificity_of_ends(run).value)
    write(256, 30.0, 7.0, 90.0)
    with pytest.raises(Missing, match="at step 400.*measured at step 256"):
        units.specificity_of_ends(run)


def test_a_study_is_read_at_its_last_phase(finished_run, tmp_path):
    study = Study.make(tmp_path / "study", finished_run.settings, Plan(seeds=2))

    def row(where, phase, statistic, *values):
        return dict(where=where, phase=phase, statistic=statistic, values=values)

    rows = [
        row("0", "16", "same", 9.0, 9.0),
        row("0", "320", "same", None, None),
        row("1", "320", "same", 2.0, 1.0),
        row("2", "320", "same", 4.0, None),
        row("all", "320", "other", 0.5, 0.7),
        row("1", "320", "other", 9.0, 9.0),
    ]
    (study.folder / "results").mkdir()
    file = study.folder / "results" / "twins.json"
    file.write_text(json.dumps({"experiment": "twins", "rows": rows}), encoding="utf-8")
    assert statistic("twins", "same", "other")(study) == [(3.0, 0.5), (1.0, 0.7)]
    assert statistic("twins", "same", 1.0)(study) == [(3.0, 1.0), (1.0, 1.0)]
    with pytest.raises(Missing, match="minirelu death replay --out"):
        statistic("replay", "same", 0.0)(study)
