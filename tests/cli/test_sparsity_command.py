"""``minirelu sparsity``: its numbers, and every mistake."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from helpers import check_fails_plainly, command

import minirelu as mr
from minirelu.interop.opt import write_opt
from minirelu.runs.files import read_arrays
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.measure import measure
from minirelu.sparsity.measures import summary
from minirelu.text.batches import consecutive, open_tokens


def test_numbers_are_those_of_the_text(finished_run, tmp_path):
    run = finished_run
    result = command(
        "sparsity", run.folder, "--json", "all.json", "--csv", "all.csv", "--counts", "all.npz",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    val = np.array(open_tokens(run.folder / "tokens/val.npy")).astype(int)
    T = run.config.n_ctx
    sequences = np.stack([val[i : i + T + 1] for i in range(0, len(val) - T, T)])
    expected, loss = measure(run.params(), sequences, run.config)

    written = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert written["measures"] == summary(expected)
    assert written["loss"] == pytest.approx(loss, rel=1e-6)
    assert written["tokens"] == expected.n_tokens and written["step"] == 12
    assert written["corpus"]["sha256"] == run.corpus["sha256"] and written["made_with"]["numpy"]
    assert written["config"] == run.settings.tables()
    for name, array in expected.to_arrays().items():
        np.testing.assert_array_equal(read_arrays(tmp_path / "all.npz")[name], array, err_msg=name)

    rows = list(csv.DictReader((tmp_path / "all.csv").open(encoding="utf-8")))
    assert [row["layer"] for row in rows] == ["0", "1"]
    assert [float(row["per_batch"]) for row in rows] == written["measures"]["per_batch"]
    assert f"{100 * written['measures']['per_token'][1]:.2f} %" in result.stdout


def test_another_text_can_be_measured_in_part(finished_run, tmp_path):
    (tmp_path / "other.txt").write_text("a dog sees the bird .\n" * 300, encoding="utf-8")
    result = command(
        "sparsity", finished_run.folder, "--corpus", "other.txt", "--tokens", 100, "--step", 4,
        "--json", "o.json", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert written["tokens"] == 96 and written["step"] == 4  # whole sequences of 16
    assert "less than the 8,192 tokens" in result.stdout


def test_measuring_on_the_training_text_is_said(finished_run, text_file):
    result = command("sparsity", finished_run.folder, "--corpus", text_file, "--tokens", 64)
    assert "which the model was trained on" in result.stdout


def test_an_opt_folder_has_the_same_numbers_as_its_run(finished_run, tmp_path):
    run = finished_run
    (tmp_path / "other.txt").write_text("a dog sees the bird .\n" * 300, encoding="utf-8")
    write_opt(run.params(), run.config, tmp_path / "opt", run.tokenizer)
    measures = []
    for model in (run.folder, tmp_path / "opt"):
        result = command(
            "sparsity", model, "--corpus", "other.txt", "--json", "o.json", cwd=tmp_path
        )
        assert result.returncode == 0, result.stderr
        written = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
        measures.append(written["measures"])
    assert measures[0] == measures[1]


def test_mistakes_are_named(finished_run, tmp_path):
    run = finished_run.folder
    (tmp_path / "short.txt").write_text("a dog", encoding="utf-8")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa" * 30)

    def fails(*arguments, words):
        check_fails_plainly(command("sparsity", *arguments, cwd=tmp_path), *words)

    fails("nowhere", words=("no model in nowhere", "config.toml"))
    fails(run, "--corpus", "nothing.txt", words=("no such corpus", "nothing.txt"))
    fails(run, "--corpus", "short.txt", words=("too short", "needs 17"))
    fails(run, "--corpus", "binary.txt", words=("not UTF-8",))
    fails(run, "--tokens", 0, words=("--tokens: 0",))
    fails(run, "--tokens", 15, words=("--tokens: 15", "16 tokens"))
    fails(run, "--step", 3, words=("no weights of step 3",))
    fails(run, "--json", tmp_path, words=("writing the results",))


def test_consecutive_sequences_overlap_by_their_target():
    tokens = np.arange(23)
    s = consecutive(tokens, 5)
    assert s[:, :-1].ravel().tolist() == list(range(20)) and s[:, -1].tolist() == [5, 10, 15, 20]
    assert consecutive(tokens[:21], 5).shape == (4, 6) and consecutive(tokens[:20], 5).shape[0] == 3
    assert consecutive(tokens[:5], 5).shape == (0, 6) and len(consecutive(tokens, 5, 14)) == 2


def test_parts_of_a_text_merge_to_the_same_integers():
    """Cut at whole batches, wherever: the same pieces are computed, to the last bit."""
    config = mr.ModelConfig(2, 2, 16, 200, n_ctx=64, d_vocab=90)
    params = mr.init_params(config)
    sequences = np.random.default_rng(0).integers(0, 90, (300, 65))
    whole, _ = measure(params, sequences, config)
    merged = UnitCounts(config)
    for part in (sequences[:128], sequences[128:256], sequences[256:]):
        merged.merge(measure(params, part, config)[0])
    for name, array in whole.to_arrays().items():
        np.testing.assert_array_equal(merged.to_arrays()[name], array, err_msg=name)
