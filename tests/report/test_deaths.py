"""The chapter on units that fell silent, and what the page of units says of each one's life."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

import minirelu as mr
from minirelu.death.history import History
from minirelu.death.summary import in_words, lives_of, summary
from minirelu.figures import FIGURES, OF_HISTORY
from minirelu.report import units
from minirelu.report.page import write_report
from minirelu.report.units import unit_data

HEADING = "Who fell silent, and when"


@pytest.fixture
def copied(run_with_history, tmp_path) -> mr.Run:
    """To take things from."""
    return mr.Run.open(shutil.copytree(run_with_history.folder, tmp_path / "copy"))


def chapter(html: str) -> str:
    return html.split(HEADING)[1].split('<h2 id="units">')[0]


def test_the_chapter_has_the_numbers_of_the_summary_and_the_figures(run_with_history):
    html = write_report(run_with_history).read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == len(FIGURES) + len(OF_HISTORY)
    told = chapter(html)
    assert re.findall(r'<figure id="(\w+)">', told) == list(OF_HISTORY)
    numbers = summary(History.of(run_with_history))
    rows = re.findall(r"<tr>(.*?)</tr>", told, re.DOTALL)[1:]
    for row, layer in zip(rows, numbers["layers"], strict=True):
        cells = re.findall(r"<td>(.*?)</td>", row)
        said = in_words(layer)
        named = ("layer", "silent now", "dead now", "ever died", "came back", "false", "vs flicker")
        assert cells == [said[name] for name in named]
    bound = 100 * numbers["silent_means_less_than"]
    words = " ".join(told.split())
    assert f"none of these {numbers['sequences']} has on" in words
    assert f"fewer than {bound:.2g} % of all" in words and "silent on the probe at 3" in words


def test_a_run_without_a_history_has_no_such_chapter(finished_run, plain_figures):
    html = write_report(finished_run).read_text(encoding="utf-8")
    assert HEADING not in html
    assert not {"margin", "deaths"} & set(unit_data(finished_run)["layers"][0])


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda run: run.history_file(8).unlink(), "step_000008.npz is missing"),
        (lambda run: run.history_file(8).write_bytes(b"<b>"), "step_000008.npz is damaged"),
        (
            lambda run: [run.history_file(s).unlink() for s in range(8, 97, 4)],
            "2 records are too few for deaths",
        ),
    ],
)
def test_a_history_that_cannot_be_told_is_a_sentence(copied, plain_figures, spoil, words):
    spoil(copied)
    told = chapter(write_report(copied).read_text(encoding="utf-8"))
    assert "The history of units is left out: " in told and words in told
    assert "<table" not in told and "<b>" not in told


def test_names_with_markup_are_text_in_the_chapter(copied, plain_figures, tmp_path):
    run = mr.Run.open(copied.folder.rename(tmp_path / "a<i>&"))
    run.history_file(8).unlink()
    told = chapter(write_report(run).read_text(encoding="utf-8"))
    assert "<i>" not in told and "a&lt;i&gt;&amp;" in told


def test_every_unit_has_its_margins_and_deaths(run_with_history):
    history = History.of(run_with_history)
    data = json.loads(units.as_json(unit_data(run_with_history, history=history)))
    assert data["margins_at"] == history.steps.tolist()
    n_deaths = 0
    for l, layer in enumerate(data["layers"]):
        lives = lives_of(history, l)
        np.testing.assert_allclose(
            np.transpose(layer["margin"]), history.layers[l].margin.astype(float), rtol=0.06
        )
        for j, triples in enumerate(layer["deaths"]):
            mine = lives.deaths.unit == j
            columns = [lives.step_of(column[mine]) for column in lives.deaths[1:]]
            assert triples == np.stack(columns, axis=1).ravel().tolist()
            n_deaths += len(triples) // 3
    assert n_deaths == sum(row["deaths"] for row in summary(history)["layers"])


def test_units_shown_in_part_keep_their_own_deaths(run_with_history, monkeypatch):
    history = History.of(run_with_history)
    whole = unit_data(run_with_history, history=history)["layers"]
    monkeypatch.setattr(units, "_MOST_UNITS", 20)
    monkeypatch.setattr(units, "_MOST_DRAWN", 5)
    data = unit_data(run_with_history, history=history)
    assert data["margins_at"] == [0, 24, 48, 72, 96]
    for layer, all_units in zip(data["layers"], whole, strict=True):
        assert len(layer["units"]) == 10
        for name in ("deaths", "first", "last", "since"):
            assert layer[name] == [all_units[name][j] for j in layer["units"]]
        assert layer["margin"] == [all_units["margin"][j][::6] for j in layer["units"]]


def test_a_unit_is_last_on_where_probe_or_record_saw_it(run_with_history):
    history = History.of(run_with_history)
    without, data = unit_data(run_with_history), unit_data(run_with_history, history=history)
    probes = [probe["step"] for probe in run_with_history.probes()]
    steps = sorted({*probes, *history.steps.tolist()})
    assert data["probes"] == len(steps) > without["probes"]
    more = 0
    for l, layer in enumerate(data["layers"]):
        for j in range(32):
            on = [s for s in probes if run_with_history.counts(s).tokens_on[l][j]]
            rows = zip(history.steps.tolist(), history.layers[l].tokens_on[:, j], strict=True)
            on += [step for step, n in rows if n]
            assert (layer["first"][j], layer["last"][j]) == ((min(on), max(on)) if on else (-1, -1))
            more += layer["last"][j] > without["layers"][l]["last"][j]
    assert more > 0
