"""What can go wrong with a sweep: runs that fail, texts that change, folders that are damaged."""

from __future__ import annotations

import pytest
from helpers import small_sweep

import minirelu as mr
from minirelu.sweeps import running as sweep_running
from minirelu.sweeps.folder import finished_runs, last_step, locked_folder, prepare_run
from minirelu.sweeps.running import Watching, expected_seconds, run_sweep
from minirelu.sweeps.sweep import Sweep


def test_a_run_that_fails_does_not_end_the_others(text_file, tmp_path):
    options = {
        "model": dict(n_layers=1, n_heads=2, d_model=16, d_mlp=24, n_ctx=16, d_vocab=300),
        "text": dict(corpus=str(text_file)),
        "train": dict(steps=300, batch_size=4, probe_tokens=64, warmup_steps=0, clip_norm=0.0)
        | dict(weight_decay=10.0),
    }
    sweep = Sweep.build("tiny", None, options, {"learning_rate": (10.0, 1e-4)}, seeds=1)
    told = []
    watching = Watching(on_failed=lambda point, why: told.append((point.name, why)))
    failures = run_sweep(sweep, tmp_path / "s", watching=watching)
    assert list(failures) == ["learning_rate=10.0,seed=0"] and told == list(failures.items())
    assert "lower --learning-rate" in failures["learning_rate=10.0,seed=0"]
    assert [p.name for p, _ in finished_runs(tmp_path / "s", sweep)] == [
        "learning_rate=0.0001,seed=0"
    ]


def test_two_processes_cannot_run_the_same_sweep(finished_sweep):
    folder, sweep = finished_sweep
    with locked_folder(folder), pytest.raises(mr.UserError, match="run by another process"):
        run_sweep(sweep, folder)


def test_a_text_that_changes_between_the_runs_is_refused(tmp_path):
    """Also where the same text becomes other tokens, and so is read again."""
    file = tmp_path / "text.txt"
    file.write_text("one two three four\n" * 2000, encoding="utf-8")
    options = {
        "model": dict(n_layers=1, n_heads=1, d_model=8, d_mlp=8, d_vocab=300),
        "text": dict(corpus=str(file)),
        "train": dict(steps=1, batch_size=1, probe_tokens=64),
    }
    run_sweep(Sweep.build("tiny", None, options, {"n_ctx": (16,)}, 1), tmp_path / "s")
    file.write_text("five six seven eight\n" * 2000, encoding="utf-8")
    sweep = Sweep.build("tiny", None, options, {"n_ctx": (16, 32)}, 1)
    for _ in range(2):  # the second time, the folder of the run is there
        with pytest.raises(mr.UserError, match="text has changed between the runs .*n_ctx=16"):
            run_sweep(sweep, tmp_path / "s")


def test_a_missing_corpus_leaves_the_folder_usable(text_file, tmp_path):
    wrong = small_sweep(tmp_path / "missing.txt")
    with pytest.raises(mr.UserError, match="no such corpus"):
        run_sweep(wrong, tmp_path / "s")
    assert run_sweep(small_sweep(text_file, seeds=1), tmp_path / "s") == {}


@pytest.mark.parametrize(
    "text", ["[sweep]\nvary = 3\n", "[sweep]\nseeds=[0]\n[sweep.vary]\nx=[1]\n", "steps = 3\n"]
)
def test_damaged_sweep_toml_is_refused(finished_sweep, tmp_path, text):
    import shutil

    folder = tmp_path / "s"
    shutil.copytree(finished_sweep[0], folder)
    (folder / "sweep.toml").write_text(text, encoding="utf-8")
    with pytest.raises(mr.UserError, match="sweep.toml"):
        run_sweep(finished_sweep[1], folder)


def test_last_step_is_read_while_a_run_is_being_trained(tmp_path, text_file):
    sweep = small_sweep(text_file)
    point = sweep.points()[0]
    assert last_step(tmp_path, point) == 0
    run = prepare_run(tmp_path, point, [])
    assert last_step(tmp_path, point) == 0
    mr.train(run, should_stop=lambda: len(run.metrics("train")) >= 5)
    assert last_step(tmp_path, point) == 5
    with open(run.folder / "metrics.jsonl", "ab") as f:
        f.write(b'{"kind": "train", "step": 7')  # half a line
    assert last_step(tmp_path, point) == 5


def test_expected_seconds_are_interpolated_between_smallest_and_largest(
    tmp_path, text_file, monkeypatch
):
    def seconds(settings, steps, first):
        return settings.model.d_mlp * (steps - first) / 100, None

    monkeypatch.setattr(sweep_running, "run_seconds", seconds)
    sweep = small_sweep(text_file, seeds=1)
    grown = Sweep(sweep.base, {"d_mlp": (24, 32, 40)}, 2)
    six = 2 * 12 * (24 + 32 + 40) / 100
    assert expected_seconds(tmp_path, grown.points()) == pytest.approx(six)
    same = Sweep(sweep.base, {}, 3)
    assert expected_seconds(tmp_path, same.points()) == pytest.approx(3 * 12 * 24 / 100)
    assert expected_seconds(tmp_path, []) == 0


def test_sweep_folders_are_not_read_as_a_corpus(finished_sweep, tmp_path):
    import shutil

    from minirelu.config import TextConfig
    from minirelu.text.corpus import open_corpus

    shutil.copytree(finished_sweep[0], tmp_path / "sweeps" / "s")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("text\n" * 500, encoding="utf-8")
    corpus = open_corpus(TextConfig(corpus=str(tmp_path), val_fraction=0.5))
    assert sorted(d.name for d in (*corpus.train, *corpus.val)) == ["a.txt", "b.txt"]
