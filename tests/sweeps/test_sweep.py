"""Sweeps: what their runs are, and that it does not matter where or how often they are run."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path

import dying
import pytest
from helpers import small_sweep

import minirelu as mr
from minirelu.sweeps import running as sweep_running
from minirelu.sweeps.folder import finished_runs, prepare_run
from minirelu.sweeps.running import Watching, run_sweep, train_run
from minirelu.sweeps.sweep import FRACTIONS, NAMED, Sweep, parse_vary
from minirelu.workers import cluster, in_own_process


def bits(folder: Path, sweep: Sweep) -> dict[str, bytes]:
    """Everything that must not depend on how a sweep was run."""
    contents = {"table": (folder / "sweep.csv").read_bytes()}
    for point, run in finished_runs(folder, sweep):
        last = run.checkpoints / f"step_{run.steps[-1]:06d}"
        for name in ("model.safetensors", "optimizer.safetensors"):
            contents[f"{point.name} {name}"] = (last / name).read_bytes()
        records = [
            {k: v for k, v in json.loads(line).items() if k != "tokens_per_second"}
            for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        contents[f"{point.name} records"] = json.dumps(records).encode()
    return contents


def files_of_runs(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was written, and what it holds."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in folder.glob("*/**/*")
        if p.is_file()
    }


# --- what the runs are


def test_runs_of_a_sweep_equal_those_of_train(finished_sweep, text_file, tmp_path):
    """A point of the sweep, trained as an ordinary run, has the same bits."""
    from minirelu.runs.prepare import create_run

    folder, sweep = finished_sweep
    for point in sweep.points()[:3:2]:  # one whose text was read, one whose text was copied
        run = create_run(point.settings, tmp_path / point.name)
        assert mr.train(run)
        swept = mr.Run.open(folder / point.name)
        assert swept.settings == run.settings and swept.corpus == run.corpus
        assert swept.params().flat.tobytes() == run.params().flat.tobytes()
        assert swept.probes() == run.probes()


def test_table_has_the_runs_own_numbers(finished_sweep):
    folder, sweep = finished_sweep
    with open(folder / "sweep.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 4 * 2
    kept = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    assert kept["settings"] == sweep.base.tables() and kept["vary"] == {"d_mlp": [24, 40]}
    for i, (point, run) in enumerate(finished_runs(folder, sweep)):
        probe = run.probes()[-1]
        assert kept["runs"][i]["probe"] == probe and kept["runs"][i]["run"] == point.name
        assert kept["runs"][i]["made_with"] == run.made_with
        for l in range(2):
            row = rows[2 * i + l]
            assert int(row["d_mlp"]) == run.config.d_mlp
            assert int(row["seed"]) == run.settings.train.seed
            assert (int(row["layer"]), int(row["step"])) == (l, 12)
            for name in ("tokens", "val_loss", "probe_tokens", "batch_tokens"):
                assert float(row[name]) == probe[name]
            for name in ("per_token", "per_sequence", "per_batch", "median_in_sequence_used"):
                assert float(row[name]) == probe[name][l]
            assert row["corpus_sha256"] == run.corpus["sha256"]


def test_named_sweeps_have_their_values_and_take_others():
    for name, (vary, _, _) in NAMED.items():
        sweep = Sweep.named(name)
        combinations = FRACTIONS.get(name) or math.prod(map(len, vary.values()))
        assert len(sweep.points()) == 3 * combinations and sweep.vary == vary
    widths = [p.settings.model.mlp_widths for p in Sweep.named("fig3-paper", seeds=1).points()]
    assert widths == [(8192,) * 6, (16384,) * 6, (32768,) * 6]
    depths = [p.settings.model for p in Sweep.named("fig4-paper", seeds=1).points()]
    assert [(m.n_layers, m.d_mlp) for m in depths] == [(6, 16384), (10, 16384), (14, 16384)]
    changed = Sweep.named("fig3", {"train": {"steps": 7}}, {"bias": (True, False)}, seeds=1)
    assert [p.settings.train.steps for p in changed.points()] == [7] * 6


def test_settings_of_every_kind_can_vary():
    vary = parse_vary(["bias=true,false", "tokenizer=bpe,bytes", "beta2=0.9,0.99"])
    points = Sweep.build("tiny", vary=vary, seeds=1).points()
    assert len(points) == 8
    assert points[-1].name == "bias=false,tokenizer=bytes,beta2=0.99,seed=0"
    settings = points[-1].settings
    assert (settings.model.bias, settings.text.tokenizer, settings.train.beta2) == (
        False, "bytes", 0.99,
    )  # fmt: skip
    (point,) = Sweep.build("tiny", vary={"corpus": ("a/b: c",)}, seeds=1).points()
    assert point.name == "corpus=a_b__c,seed=0"


# --- again, interrupted, elsewhere: the same


def test_finished_runs_are_left_alone(finished_sweep):
    folder, sweep = finished_sweep
    before = files_of_runs(folder)
    assert run_sweep(sweep, folder) == {}
    assert files_of_runs(folder) == before


def test_a_sweep_can_gain_values_and_seeds(text_file, tmp_path):
    small = small_sweep(text_file, seeds=1)
    run_sweep(small, tmp_path / "s")
    before = files_of_runs(tmp_path / "s")
    grown = Sweep(small.base, {"d_mlp": (24, 40, 8)}, 2)
    run_sweep(grown, tmp_path / "s")
    after = files_of_runs(tmp_path / "s")
    assert {name: after[name] for name in before} == before
    assert len(finished_runs(tmp_path / "s", grown)) == 6
    assert Sweep.from_folder(tmp_path / "s") == grown
    with pytest.raises(mr.UserError, match="d_mlp: 24, 40, 8, not 24, 40; 2 seeds, not 1"):
        run_sweep(small, tmp_path / "s")


def test_other_sweeps_are_refused(finished_sweep, text_file):
    folder, sweep = finished_sweep
    others = {
        "train.steps: 12, not 13": small_sweep(text_file, steps=13),
        "train.seed: 0, not 5": small_sweep(text_file, seed=5),
        "d_mlp varies, not n_layers": Sweep.build("tiny", vary={"n_layers": (1, 2)}),
    }
    for words, other in others.items():
        with pytest.raises(mr.UserError, match=f"holds another sweep .*{words}"):
            run_sweep(other, folder)
    with pytest.raises(mr.UserError, match="holds a run already"):
        run_sweep(sweep, folder / sweep.points()[0].name)


def test_a_run_with_other_settings_in_a_folder_of_the_sweep_is_refused(text_file, tmp_path):
    sweep = small_sweep(text_file)
    run_sweep(small_sweep(text_file, seeds=1), tmp_path / "s")
    os.rename(tmp_path / "s/d_mlp=40,seed=0", tmp_path / "s/d_mlp=40,seed=1")
    with pytest.raises(mr.UserError, match=r"d_mlp=40,seed=1 is a run .*train.seed: 0, not 1"):
        run_sweep(sweep, tmp_path / "s")


@pytest.mark.parametrize("looks", [1, 2])
def test_a_sweep_interrupted_many_times_gives_the_same_bits(
    finished_sweep, text_file, tmp_path, looks, monkeypatch
):
    """Stopped after some looks at what goes on, until all is done: the same bits."""
    monkeypatch.setattr(sweep_running, "_LOOK_EVERY", 0.02)
    sweep, folder, n_calls = small_sweep(text_file), tmp_path / "s", 0
    while not folder.exists() or len(finished_runs(folder, sweep)) < 4:
        n_calls += 1
        asked = iter([False] * (looks + n_calls))
        watching = Watching(should_stop=lambda asked=asked: next(asked, True))
        assert run_sweep(sweep, folder, watching=watching) == {}
        assert n_calls < 500
    assert n_calls > 1
    assert bits(folder, sweep) == bits(*finished_sweep)
    assert not (folder / ".stop").exists()


def test_processes_give_the_same_bits(finished_sweep, text_file, tmp_path):
    sweep = small_sweep(text_file)
    assert run_sweep(sweep, tmp_path / "s", workers=2) == {}
    assert bits(tmp_path / "s", sweep) == bits(*finished_sweep)


def test_a_killed_process_affects_only_its_run(finished_sweep, text_file, tmp_path):
    """Its run goes on in another process, from the last checkpoint; nothing blocks it."""
    sweep = small_sweep(text_file)
    point = sweep.points()[0]
    run = prepare_run(tmp_path, point, [])
    marker, stop = tmp_path / "died", tmp_path / "stop"
    arguments = (dying.train_run_dying, marker, 6, str(run.folder), str(stop))
    assert in_own_process(1, stop.exists, *arguments)
    assert marker.exists()
    recovered, undisturbed = run.params(12), mr.Run.open(finished_sweep[0] / point.name).params(12)
    assert recovered.flat.tobytes() == undisturbed.flat.tobytes()
    with pytest.raises(mr.UserError, match="died 3 times"):
        in_own_process(1, stop.exists, dying.die)
    stop.touch()
    assert in_own_process(1, stop.exists, dying.die) is None


def test_a_sweep_on_a_cluster_survives_a_killed_worker(
    finished_sweep, text_file, tmp_path, dask_address
):
    sweep, marker = small_sweep(text_file), tmp_path / "died"

    class Deadly:
        """A cluster where one run kills its worker."""

        def __init__(self, executor):
            self.executor = executor

        def submit(self, work, *args):
            assert work is train_run
            return self.executor.submit(dying.train_run_dying, marker, 6, *args)

    with cluster(dask_address) as executor:
        assert run_sweep(sweep, tmp_path / "s", cluster=Deadly(executor)) == {}
    assert marker.exists()  # a worker did die
    assert bits(tmp_path / "s", sweep) == bits(*finished_sweep)
