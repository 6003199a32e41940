"""The table of measures: one row is enough, and runs made before it stay readable."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import made_run, quick_settings

import minirelu as mr
from minirelu.cli.main import cli
from minirelu.figures import FIGURES, KINDS
from minirelu.figures.runs import check_comparable, facts
from minirelu.report.compare import compare, heading, table
from minirelu.report.page import layer_rows, write_report
from minirelu.runs.prepare import create_run
from minirelu.runs.run import measured
from minirelu.sparsity.measures import (
    MEASURES,
    OF_UNITS,
    UNITS,
    Measure,
    must_share,
    probe_measures,
    report_measures,
    summary,
)
from minirelu.sparsity.usage import in_sequence_percentile
from minirelu.sweeps.folder import table as sweep_table
from minirelu.sweeps.sweep import Point


def on_throughout(counts: mr.UnitCounts) -> np.ndarray:
    return np.array([np.mean(on == counts.n_tokens) for on in counts.tokens_on])


def most_on(counts: mr.UnitCounts) -> np.ndarray:
    return np.array([on.max() for on in counts.tokens_on])


@pytest.fixture
def two_more(monkeypatch):
    """Add a share and a number of units to the table."""
    for row in (
        Measure(
            "on_throughout", "units always on", OF_UNITS, on_throughout, ("tokens",), True, True
        ),
        Measure("most_on", "most tokens of a unit", UNITS, most_on, (), True, True, "most"),
    ):
        monkeypatch.setitem(MEASURES, row.name, row)


@pytest.fixture
def old_run(finished_run, tmp_path) -> mr.Run:
    """A run without the two."""
    run = mr.Run.open(shutil.copytree(finished_run.folder, tmp_path / "old"))
    assert not {"on_throughout", "most_on"} & set(run.probes()[-1])
    return run


@pytest.fixture
def new_run(two_more, text_file, tmp_path) -> mr.Run:
    """A run that has them."""
    run = create_run(quick_settings(text_file, seed=1), tmp_path / "new")
    assert mr.train(run)
    return run


def titles(run: mr.Run) -> list[str]:
    return [panel["title"] for panel in KINDS["heatmap"].data([run])["panels"]]


def test_one_row_puts_a_measure_everywhere(new_run, tmp_path, monkeypatch):
    counts, record = new_run.counts(12), new_run.probes()[-1]
    assert record["on_throughout"] == on_throughout(counts).tolist()
    assert record["most_on"] == most_on(counts).tolist() and max(record["most_on"]) > 1

    assert titles(new_run)[-1] == "units always on: share of the layer's units"  # not most_on
    last = layer_rows(record)[1]
    assert last["on_throughout"].endswith(" %") and last["most_on"] == str(record["most_on"][1])
    page = write_report(new_run).read_text(encoding="utf-8")
    assert "<th>units always on</th>" in page and "Units: most tokens of a unit." in page
    text = "\n".join(table(compare([new_run, new_run])))
    for line in ("on_throughout: units always on, %", "most_on: most tokens of a unit, units"):
        assert line in text

    monkeypatch.chdir(tmp_path)
    arguments = ["sparsity", "new", "--json", "x.json", "--csv", "x.csv"]
    output = CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout
    assert "most" in output and "always" not in output  # which has no heading
    actual = json.loads(Path("x.json").read_text(encoding="utf-8"))["measures"]
    with open("x.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    for name in ("on_throughout", "most_on"):
        assert [float(row[name]) for row in rows] == actual[name]


def test_run_made_before_a_measure_is_readable(two_more, old_run):
    record = old_run.probes()[-1]
    assert measured(record, "on_throughout", 2) == [None, None]
    assert [row["on_throughout"] for row in layer_rows(record)] == ["-", "-"]
    assert layer_rows(record)[0]["per_token"] != "-"
    assert len(titles(old_run)) == 4  # no map of what was not measured
    assert "<td>-</td>" in write_report(old_run).read_text(encoding="utf-8")
    for draw, _ in FIGURES.values():
        draw(old_run)


def test_runs_with_and_without_a_measure_can_be_compared(new_run, old_run):
    result = compare([old_run, new_run])
    rows, record = result["measures"]["on_throughout"], new_run.probes()[-1]
    assert rows["layer 1"]["values"] == [None, record["on_throughout"][1]]
    lines = table(result)
    at = lines.index("on_throughout: units always on, %")
    assert lines[at + 2].split()[2:] == ["-", f"{100 * record['on_throughout'][0]:.1f}", "-"]
    assert "A  old, step 12" in heading(result)
    none = compare([old_run, old_run])
    assert "on_throughout" not in none["measures"] and "per_token" in none["measures"]

    points = [(Point("", {}, run.settings), run) for run in (old_run, new_run)]
    shares = [row["on_throughout"] for row in sweep_table(points)]
    assert shares == [None, None, *record["on_throughout"]]


def test_probes_lacking_a_measure_are_a_gap_in_the_heat_map(two_more, finished_run, tmp_path):
    probes = [{"step": 0}, {"step": 12, "on_throughout": [0.25, 0.75]}]
    run = made_run(tmp_path / "mixed", finished_run, probes)
    file = run.folder / "metrics.jsonl"
    first, last = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    del first["on_throughout"]
    file.write_text(json.dumps(first) + "\n" + json.dumps(last) + "\n", encoding="utf-8")
    data = KINDS["heatmap"].data([run])
    assert data["panels"][-1]["z"] == [[None, 0.25], [None, 0.75]]
    assert KINDS["heatmap"].draw(data).axes


@pytest.mark.parametrize(
    "name, values",
    [
        ("on_throughout", [0.5]),  # a layer short
        ("on_throughout", [0.5, 1.5]),  # no share
        ("on_throughout", 0.5),
        ("on_throughout", None),
        ("most_on", [1, "2"]),
        ("most_on", [1, float("inf")]),
        ("per_token", [0.5, float("nan")]),
    ],
)
def test_values_outside_a_measure_s_range_are_damage(
    two_more, finished_run, tmp_path, name, values
):
    good = made_run(tmp_path / "good", finished_run, [{"step": 0, "most_on": [200, None]}])
    assert good.probes()[0]["most_on"] == [200, None]
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1 is damaged"):
        made_run(tmp_path / "bad", finished_run, [{"step": 0, name: values}]).probes()


def test_probe_and_command_use_the_same_names(finished_run):
    record = finished_run.probes()[-1]
    actual = summary(finished_run.counts(record["step"]))
    names = [measure.name for measure in probe_measures()]
    medians = {"median_in_sequence_used", "median_in_sequence_all"}
    assert {"per_token", "per_sequence", "per_batch", *medians} <= set(names)
    assert {name: record[name] for name in names} == {name: actual[name] for name in names}
    assert not any(name.startswith("p50_") for name in actual)


def test_percentiles_are_what_their_names_say(finished_run):
    counts = finished_run.counts(12)
    actual = summary(counts)
    for over in ("used", "all"):
        for p, name in ((5, "p5"), (25, "p25"), (50, "median"), (75, "p75"), (95, "p95")):
            expected = in_sequence_percentile(counts, p, over).tolist()
            assert actual[f"{name}_in_sequence_{over}"] == expected
    assert sum("in_sequence_" in name for name in actual) == 10


def test_table_is_consistent():
    for name, measure in MEASURES.items():
        assert name == measure.name and measure.what and measure.unit
        assert set(must_share(name)) <= {"n_ctx", "batch", "tokens", "text"}
        assert measure.in_probe or not measure.in_report
    assert must_share("val_loss") == ("text",) and must_share("per_batch") == ("batch",)
    assert {measure.name for measure in report_measures()} < {m.name for m in probe_measures()}


def test_what_runs_must_share_comes_from_the_table(two_more, finished_run, tmp_path):
    a = made_run(tmp_path / "a", finished_run, [{"step": 0}])
    b = made_run(tmp_path / "b", finished_run, [{"step": 0, "probe_tokens": 512}])
    with pytest.raises(
        ValueError, match="on_throughout cannot be compared between runs with probes of"
    ):
        check_comparable([a, b], "on_throughout")
    assert check_comparable([a, b], "most_on") == ["Not alike: probes of different size."]
    result = compare([a, b])
    assert "most_on" in result["measures"] and "on_throughout" not in result["measures"]
    assert facts(a)["on_means"] == "exactly non-zero"
