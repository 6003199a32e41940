"""``minirelu specificity``: its numbers, over seeds and steps, and every mistake."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pytest
from helpers import check_fails_plainly, command, new_run, quick_settings

import minirelu as mr
from minirelu.intervals import over_seeds
from minirelu.runs.markdown import marks
from minirelu.runs.prepare import create_run
from minirelu.sparsity.measure import measure as count
from minirelu.sparsity.measures import summary
from minirelu.specificity.layers import NUMBERS
from minirelu.specificity.measure import measure, read_results


@pytest.fixture
def swept(finished_sweep, tmp_path):
    """A copy of a sweep of two widths and two seeds, to write in."""
    return shutil.copytree(finished_sweep[0], tmp_path / "swept")


def written(file) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def test_numbers_are_those_of_the_run(trained, tmp_path):
    result = command(
        "specificity", trained, "--tokens", 1000, "--json", "o.json", "--csv", "o.csv",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    run = mr.Run.open(trained)
    content = written(tmp_path / "o.json")
    (group,) = content["groups"]
    (of_run,) = group["runs"]
    (last,) = of_run["results"]
    assert last == measure(run, 1000) and last["step"] == 12
    assert last["tokens"] == 992 and group["corpus"]["sha256"] == run.corpus["sha256"]
    assert group["settings"] == run.settings.tables() and last["made_with"]["numpy"]
    assert of_run["trained_with"] == run.made_with and group["on_means"] == "exactly non-zero"
    assert read_results(run) == [last]
    rows = list(csv.DictReader((tmp_path / "o.csv").open(encoding="utf-8")))
    assert [row["layer"] for row in rows] == ["0", "1"]
    for l, row in enumerate(rows):
        assert {n: float(row[n]) if row[n] else None for n in NUMBERS} == last["layers"][l]
    assert f"{100 * last['layers'][1]['silent']:.2f}  " in result.stdout
    assert "first against last layer" in result.stdout.lower()
    assert "next      minirelu figure specificity" in result.stdout


def test_use_is_that_of_the_counts(trained):
    """What is also known from streaming counts is the same number."""
    run = mr.Run.open(trained)
    layers = measure(run, 10**9)["layers"]
    counts, loss = count(run.params(), run.held_out(10**9), run.config, compute="reference")
    expected = summary(counts)
    ours = {
        "token_in_sequence": "token_in_sequence",
        "sequence_in_batch": "sequence_in_batch",
        "used_per_batch": "per_batch",
    }
    for name, theirs in ours.items():
        assert [layer[name] for layer in layers] == pytest.approx(expected[theirs])
    units = np.array(expected["units"])
    silent = [layer["silent"] for layer in layers] * units
    assert silent == pytest.approx(expected["silent_units"])
    assert measure(run, 10**9)["loss"] == pytest.approx(loss, rel=1e-5)


def test_seeds_are_summed_up_with_their_interval(swept, tmp_path):
    result = command("specificity", swept, "--tokens", 640, "--json", "o.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    groups = written(tmp_path / "o.json")["groups"]
    assert [group["name"] for group in groups] == ["d_mlp 24", "d_mlp 40"]
    for group in groups:
        assert f"== {group['name']}" in result.stdout
        assert sorted(run["seed"] for run in group["runs"]) == [0, 1]
        seeds = [run["results"][0]["layers"] for run in group["runs"]]
        for name in NUMBERS:
            if None in [layer[name] for layers in seeds for layer in layers]:
                continue
            for l in range(2):
                mean, low, high = over_seeds([layers[l][name] for layers in seeds])
                shown = group["layers"][name][l]
                assert [shown["mean"], shown["low"], shown["high"]] == [mean, low, high]
            mean, low, high = over_seeds([layers[1][name] - layers[0][name] for layers in seeds])
            shown = group["last_minus_first"][name]
            assert [shown["mean"], shown["low"], shown["high"]] == [mean, low, high]
        loss = over_seeds([run["results"][0]["loss"] for run in group["runs"]])
        half = loss.value - loss.low
        assert f"loss      {loss.value:.3f} ± {half:.3f} nats" in result.stdout
        number = group["layers"]["information_token"][0]
        text = f"{number['mean']:.3f} ± {number['mean'] - number['low']:.3f}"
        assert text in result.stdout
    side_by_side = result.stdout.split("Side by side")[1]
    assert re.search(r"d_mlp 40 +2 ", side_by_side)


def test_only_finished_runs_of_a_sweep_are_read_and_each_once(swept, tmp_path):
    last = sorted((swept / "d_mlp=40,seed=1" / "checkpoints").iterdir())[-1]
    shutil.rmtree(last)
    arguments = ("specificity", swept, swept / "d_mlp=24,seed=0", "--tokens", 64)
    result = command(*arguments, "--json", "o.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    groups = written(tmp_path / "o.json")["groups"]
    assert [len(group["runs"]) for group in groups] == [2, 1]
    assert groups[1]["layers"]["silent"][0]["low"] is None  # one seed has no interval
    for run in swept.glob("*/checkpoints"):
        shutil.rmtree(run)
    check_fails_plainly(command("specificity", swept), "no run of the sweep in", "is finished yet")


def test_steps_over_training_are_kept(trained, tmp_path):
    run = mr.Run.open(trained)
    arguments = ("specificity", trained, "--tokens", 320)
    result = command(*arguments, "--over-training", "--json", "o.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    results = written(tmp_path / "o.json")["groups"][0]["runs"][0]["results"]
    assert [r["step"] for r in results] == run.steps
    assert results[1] == measure(run, 320, run.steps[1]) != results[0]
    assert "step 12, after" in result.stdout
    for r in results:
        ends = [f"{100 * r['layers'][l]['silent']:.2f}" for l in (0, -1)]
        assert f"\n{r['step']} " in result.stdout and " / ".join(ends) in result.stdout
    begin, end = marks("over-training")
    (tmp_path / "p.md").write_text(f"{begin}\n{end}\n", encoding="utf-8")
    page = ("--page", "p.md#over-training")
    assert command(*arguments, "--over-training", *page, cwd=tmp_path).returncode == 0
    text = (tmp_path / "p.md").read_text(encoding="utf-8")
    assert all(f"\n| {r['step']} |" in text for r in results)
    assert (tmp_path / "p" / "over-training.png").is_file()
    # another step of as much text joins them, one of another text takes their place
    assert command(*arguments, "--step", 4).returncode == 0
    assert read_results(run) == results
    assert command("specificity", trained, "--tokens", 640, "--step", 4).returncode == 0
    assert [(r["step"], r["tokens"]) for r in read_results(run)] == [(4, 640)]


def test_one_layer_and_a_threshold_are_said(text_file, tmp_path):
    settings = quick_settings(text_file, steps=2)
    tables = settings.tables()
    tables["model"] |= {"n_layers": 1, "act_fn": "gelu"}
    run = create_run(mr.Config.from_tables(tables), tmp_path / "one")
    assert mr.train(run)
    result = command("specificity", run.folder, "--tokens", 160)
    assert result.returncode == 0, result.stderr
    assert "One layer: there is no first and last one to compare." in result.stdout
    assert "On: activation above 0 (gelu has no exact zeros)." in result.stdout


def test_mistakes_are_named(trained, text_file, tmp_path):
    def fails(*arguments: object, words: tuple[str, ...]) -> None:
        check_fails_plainly(command("specificity", *arguments, cwd=tmp_path), *words)

    fails("nothing", words=("no run in nothing",))
    fails(trained, "--tokens", 0, words=("--tokens: 0 is not allowed",))
    fails(trained, "--tokens", 15, words=("--tokens: 15 is not allowed", "is 16 tokens"))
    fails(trained, "--step", 3, words=("no weights of step 3; there are 0, 1, 2, 4",))
    fails(trained, "--step", 4, "--over-training", words=("give one of them",))
    fails(trained, "--json", "no/such/o.json", "--tokens", 16, words=("o.json",))
    fresh = new_run(tmp_path, text_file, "fresh")
    fails(fresh.folder, words=("no checkpoint yet",))
    np.save(trained / "tokens" / "val.npy", np.arange(9, dtype=np.uint16))
    fails(trained, words=("is too short: 9 tokens", "needs 17"))


def test_what_is_stored_is_checked(trained):
    run = mr.Run.open(trained)
    with pytest.raises(mr.UserError, match="is not known yet: .*specificity"):
        read_results(run)
    assert command("specificity", trained, "--tokens", 64).returncode == 0
    file = trained / "specificity.json"
    whole = written(file)
    whole["results"][0]["layers"][1].pop("positional")
    for damaged in (json.dumps(whole), '{"results": []}', "[]", '{"results": [3]}'):
        file.write_text(damaged, encoding="utf-8")
        with pytest.raises(mr.UserError, match="is damaged, or of another version; measure again"):
            read_results(run)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(mr.UserError, match="specificity.json"):
        read_results(run)
    assert command("specificity", trained, "--tokens", 64).returncode == 0
    assert [result["tokens"] for result in read_results(run)] == [64]
