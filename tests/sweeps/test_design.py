"""Designs: balanced fractions of a grid, tables of runs, and the sweeps they make."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import command, small_sweep

import minirelu as mr
from minirelu.sweeps.design import fraction, read_design, signs_of_fraction
from minirelu.sweeps.folder import check_folder
from minirelu.sweeps.sweep import FRACTIONS, NAMED, Sweep


@pytest.mark.parametrize("factors, runs", [(4, 8), (6, 16), (8, 16), (12, 32), (16, 32), (14, 16)])
def test_a_fraction_is_balanced(factors, runs):
    """Each setting is high in half of the runs, and in half of those where another one is high."""
    signs = signs_of_fraction(factors, runs)
    assert signs.shape == (runs, factors)
    assert (signs.T @ signs == runs * np.eye(factors)).all() and (signs.sum(axis=0) == 0).all()
    assert len(np.unique(signs, axis=0)) == runs


@pytest.mark.parametrize("factors, runs", [(8, 16), (12, 32), (16, 32)])
def test_no_main_effect_is_mixed_with_two_settings_together(factors, runs):
    signs = signs_of_fraction(factors, runs)
    for i, j in itertools.combinations(range(factors), 2):
        assert not ((signs[:, i] * signs[:, j]) @ signs).any()


@pytest.mark.parametrize("factors, runs", [(3, 12), (2, 2), (2, 8), (7, 8)])
def test_an_impossible_fraction_is_refused(factors, runs):
    with pytest.raises(mr.UserError, match=f"fraction of {runs} runs"):
        signs_of_fraction(factors, runs)


def test_a_fraction_takes_two_values_of_each_setting():
    with pytest.raises(mr.UserError, match="two values of each setting; d_mlp has 3"):
        fraction({"d_mlp": (1, 2, 3), "bias": (True, False)}, 4)


def test_the_named_screen_trains_each_setting_as_often_at_both_values():
    sweep = Sweep.named("screen", seeds=1)
    points = sweep.points()
    assert len(points) == FRACTIONS["screen"] == 32
    for field, values in NAMED["screen"][0].items():
        assert [sum(p.values[field] == v for p in points) for v in values] == [16, 16]
        assert {p.values[field] for p in points} == set(values)


def test_a_table_of_runs_becomes_a_sweep(tmp_path):
    file = tmp_path / "design.csv"
    file.write_text(
        "d-mlp,bias,intervene\n24,true,\n16-8,false,freeze params=*.W_in\n", encoding="utf-8"
    )
    vary, rows = read_design(file)
    assert rows == ((24, True, ()), ((16, 8), False, ("freeze params=*.W_in",)))
    points = Sweep.build("tiny", vary=vary, seeds=2, rows=rows).points()
    assert [p.name for p in points] == [f"run=00{i},seed={s}" for s in (0, 1) for i in (1, 2)]
    second = points[1].settings
    assert second.model.mlp_widths == (16, 8) and not second.model.bias
    assert second.train.intervene == ("freeze params=*.W_in",)


@pytest.mark.parametrize(
    "text, message",
    [
        ("d_mlp,colour\n1,2\n", "no setting 'colour'"),
        ("d_mlp,d-mlp\n1,2\n", "two columns of one setting"),
        ("d_mlp,bias\n1\n", "run 1 has 1 values for 2 settings"),
        ("d_mlp\n", "a line for each run"),
        ("d_mlp,bias\n24,true\n40,true\n24,true\n", "run 3 is in it already, as run 1"),
        ("", "a line for each run"),
    ],
)
def test_a_wrong_table_of_runs_is_refused(tmp_path, text, message):
    (tmp_path / "d.csv").write_text(text, encoding="utf-8")
    with pytest.raises(mr.UserError, match=message) as e:
        read_design(tmp_path / "d.csv")
    assert "d.csv" in str(e.value)


def test_a_value_that_is_not_allowed_is_refused(tmp_path):
    (tmp_path / "d.csv").write_text("d_mlp\n24\nmany\n", encoding="utf-8")
    vary, rows = read_design(tmp_path / "d.csv")
    with pytest.raises(mr.UserError, match="d_mlp: 'many' is not allowed"):
        Sweep.build("tiny", vary=vary, rows=rows)


def test_a_design_goes_on_only_with_the_same_combinations(tmp_path):
    vary = {"d_mlp": (24, 40), "bias": (True, False)}
    rows = ((24, True), (40, False))
    sweep = Sweep.build("tiny", vary=vary, seeds=1, rows=rows)
    (tmp_path / "run=1,seed=0").mkdir()
    (tmp_path / "run=1,seed=0" / "config.toml").touch()
    (tmp_path / "sweep.toml").write_text(sweep.to_toml(), encoding="utf-8")
    assert Sweep.from_folder(tmp_path) == sweep
    check_folder(Sweep.build("tiny", vary=vary, seeds=2, rows=(*rows, (24, False))), tmp_path)
    for other in (rows[::-1], rows[:1], None):
        with pytest.raises(mr.UserError, match="other combinations"):
            check_folder(Sweep.build("tiny", vary=vary, seeds=1, rows=other), tmp_path)


def test_a_sweep_beyond_its_budget_trains_nothing(text_file, tmp_path):
    done = command("sweep", "--preset", "tiny", "--seeds", "3", "--budget", "1s",
                        "--corpus", text_file, "--out", tmp_path / "s")  # fmt: skip
    assert done.returncode == 2 and "--budget is 1 s" in done.stderr
    assert not (tmp_path / "s").exists()


def test_runs_of_a_grid_are_named_after_their_values(text_file):
    assert small_sweep(text_file).points()[0].name == "d_mlp=24,seed=0"


def test_runs_of_a_design_keep_their_names_when_it_grows():
    vary = {"d_mlp": tuple(range(8, 20))}
    rows = tuple((width,) for width in vary["d_mlp"])
    few, more = (Sweep.build("tiny", vary=vary, seeds=1, rows=rows[:n]) for n in (9, 12))
    assert [p.name for p in few.points()] == [p.name for p in more.points()][:9]
    assert few.differences(more) == []


def test_a_design_and_a_fraction_are_trained_from_the_command_line(text_file, tmp_path):
    small = ["--preset", "tiny", "--n-layers", 1, "--d-model", 8, "--n-ctx", 16, "--d-vocab", 300,
             "--n-heads", 1, "--steps", 2, "--batch-size", 2, "--probe-tokens", 64, "--seeds", 1,
             "--corpus", text_file]  # fmt: skip
    (tmp_path / "pair.csv").write_text("d_mlp,bias\n8,true\n16,false\n", encoding="utf-8")
    for _ in range(2):  # the second time everything is there
        done = command("sweep", "--design", tmp_path / "pair.csv", "--out", tmp_path / "d", *small)
        assert done.returncode == 0, done.stderr
    assert mr.Run.open(tmp_path / "d" / "run=002,seed=0").config.mlp_widths == (16,)
    done = command("sweep", "--vary", "d_mlp=8,16", "--vary", "bias=true,false", "--fraction", 4,
                   "--out", tmp_path / "f", *small)  # fmt: skip
    assert done.returncode == 0 and "next    minirelu effects" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["fig3", "--design", "d.csv"], "leave out NAME, --vary and --fraction"),
        (["--design", "d.csv", "--vary", "d_mlp=8,16"], "leave out NAME, --vary and --fraction"),
        (["--design", "none.csv"], "none.csv"),
        (["--design", "d.csv"], "d.csv: there is no setting 'colour'"),
        (["--design", "value.csv"], "value.csv, or an option: d_mlp: 'many' is not allowed"),
        (["screen", "--fraction", "16"], "the sweep screen has its own combinations"),
        (["--vary", "d_mlp=8,16", "--fraction", "16"], "choose another number of runs"),
        (["fig3", "--budget", "nanh"], "--budget: nanh is not like 30m"),
    ],
)
def test_mistakes_on_the_command_line_are_named(tmp_path, arguments, message):
    (tmp_path / "d.csv").write_text("colour\nred\n", encoding="utf-8")
    (tmp_path / "value.csv").write_text("d_mlp\n24\nmany\n", encoding="utf-8")
    done = command("sweep", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "sweeps").exists()
