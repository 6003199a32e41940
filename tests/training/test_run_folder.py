"""What a training writes: records, probes, checkpoints, and in which order."""

from __future__ import annotations

import os

import numpy as np
import pytest
from helpers import new_run, quick_settings, stop_after

import minirelu as mr
from minirelu.runs import files
from minirelu.runs.checkpoint import checkpoint_steps, thin_out
from minirelu.runs.prepare import create_run
from minirelu.sparsity.measure import measure
from minirelu.training import trainer


def test_new_run_keeps_training_and_validation_apart(tmp_path):
    """Tokenizer from the training part, probe from the other, baselines from one for the other."""
    from minirelu.config import TextConfig
    from minirelu.text.batches import baselines, make_probe
    from minirelu.text.corpus import open_corpus
    from minirelu.text.tokenizer import Tokenizer

    file = tmp_path / "two.txt"
    file.write_text("one two one two\n" * 900 + "seven eight nine\n" * 90, encoding="utf-8")
    run = create_run(quick_settings(file), tmp_path / "run")
    corpus = open_corpus(TextConfig(corpus=str(file)))
    tokenizer = Tokenizer.for_corpus(corpus, run.settings.text, 300)
    assert run.tokenizer.to_json() == tokenizer.to_json()
    # words of the validation part alone were never merged
    assert len(tokenizer.encode(" two")) == 1 and len(tokenizer.encode(" eight")) > 1
    val = np.load(run.folder / "tokens" / "val.npy")
    read = {
        part: "".join("".join(d.chunks()) for d in getattr(corpus, part))
        for part in ("train", "val")
    }
    assert tokenizer.decode(run.train_tokens.tolist()) == read["train"] + "<|endoftext|>"
    assert tokenizer.decode(val.tolist()) == read["val"] + "<|endoftext|>"
    np.testing.assert_array_equal(run.probe_tokens, make_probe(val, 256, 16))
    expected = baselines(run.train_tokens, run.probe_tokens, tokenizer.size)
    assert run.corpus["baselines"] == expected
    assert run.corpus["train_tokens"] == len(run.train_tokens)


def test_slow_runs_are_saved_between_probes(tmp_path, text_file, monkeypatch):
    saved = []
    monkeypatch.setattr(trainer, "SAVE_EVERY_SECONDS", 0)
    monkeypatch.setattr(trainer, "save", lambda run, state, metrics: saved.append(state.step))
    mr.train(new_run(tmp_path, text_file))
    assert saved == list(range(13))


def test_files_are_synced_before_they_are_renamed(tmp_path, text_file, monkeypatch):
    """Each file and folder is synced first, then renamed, then the folder above is synced."""
    done = []
    for home, name in ((files, "sync"), (os, "replace"), (os, "rename"), (os, "fsync")):
        real = getattr(home, name)

        def noted(*args, real=real, name=name):
            done.append((name, str(os.fstat(args[0]).st_ino if name == "fsync" else args[0])))
            return real(*args)

        monkeypatch.setattr(home, name, noted)
    run = new_run(tmp_path, text_file, steps=1)
    made = len(done)
    mr.train(run)
    renames = [i for i, (name, _) in enumerate(done) if name in ("replace", "rename")]
    assert len(renames) > 5
    for i in renames:
        temporary = done[i][1]
        synced = {path for name, path in done[:i] if name == "sync"}
        assert temporary in synced
        assert done[i + 1][0] == "sync" and temporary.startswith(done[i + 1][1])
    saving = [i for i in renames if "step_" in done[i][1] and "checkpoints" in done[i][1]]
    metrics = str(os.stat(run.folder / "metrics.jsonl").st_ino)
    assert len(saving) == 2 and done.index(("fsync", metrics), made) < saving[0]


def test_records_have_their_fields(finished_run):
    train, probes = finished_run.metrics("train"), finished_run.probes()
    assert [r["step"] for r in train] == list(range(1, 13))
    assert [p["step"] for p in probes] == [0, 1, 2, 4, 8, 12]
    tokens_per_step = 4 * 16
    assert all(r["tokens"] == r["step"] * tokens_per_step for r in train + probes)
    assert set(train[0]) == {
        *("kind", "step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second")
    }
    for p in probes:
        for name in ("per_token", "per_sequence", "per_batch", "median_in_sequence_used"):
            assert len(p[name]) == 2 and all(0 <= x <= 1 for x in p[name])


def test_every_number_of_a_probe_can_be_recomputed(finished_run):
    """From the folder alone: weights, probe.npy, and NumPy."""
    run = finished_run
    for record in run.probes():
        params, probe = run.params(record["step"]), run.probe_tokens
        logits, acts = mr.forward(params, probe[:, :-1], run.config)
        loss, _ = mr.cross_entropy(logits, probe[:, 1:])
        assert record["val_loss"] == pytest.approx(loss, rel=1e-5)
        assert record["batch_tokens"] == probe[:, 1:].size
        for l in range(run.config.n_layers):
            on = acts[f"blocks.{l}.mlp.hook_post"] > 0
            # a pre-activation within rounding of 0 may fall on the other side: one unit at most
            one = 1.01 / on.shape[-1]
            assert record["per_token"][l] == pytest.approx(on.mean(), abs=1e-3)
            assert record["per_sequence"][l] == pytest.approx(on.any(axis=1).mean(), abs=one / 4)
            assert record["per_batch"][l] == pytest.approx(on.any(axis=(0, 1)).mean(), abs=one)
        used = mr.usage(run.counts(record["step"]))
        assert record["per_token"] == used.per_token.tolist()
        assert record["per_batch"] == used.per_batch.tolist()


def test_run_folder_is_as_documented(finished_run):
    folder = finished_run.folder
    for name in ("config.toml", "tokenizer.json", "corpus.json", "metrics.jsonl", "probe.npy"):
        assert (folder / name).is_file()
    assert finished_run.steps == [0, 1, 2, 4, 8, 12]
    with_optimizer = checkpoint_steps(finished_run.checkpoints, resumable=True)
    assert with_optimizer == [8, 12]  # the last two only
    assert [p.name for p in folder.rglob(".*")] == []  # nothing half-written is left
    assert finished_run.corpus["sha256"] and finished_run.made_with["numpy"]
    assert mr.Run.open(folder).settings == finished_run.settings


def test_a_probe_in_parts_gives_the_same_counts(finished_run):
    run = finished_run
    params, tokens = run.params(), run.probe_tokens
    whole, loss = measure(params, tokens, run.config)
    for at_once in (1, 3):
        parts, parts_loss = measure(params, tokens, run.config, at_once=at_once)
        assert parts_loss == pytest.approx(loss, rel=1e-6)
        for name, array in whole.to_arrays().items():
            # products of another size round differently, by a few times 2**-20 in sums of values
            off = 50 if name.startswith("total") else 0
            np.testing.assert_allclose(parts.to_arrays()[name], array, 0, off, err_msg=name)


def test_thinning_out_keeps_the_steps_named(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    thin_out(run.checkpoints, keep_weights={1, 4})
    assert run.steps == [1, 4, 8, 12]  # 8 and 12 can be resumed from


def test_code_that_changed_before_a_resume_is_on_record(text_file, tmp_path, monkeypatch):
    """Report and comparison say which code made a run."""
    from minirelu.report.compare import compare
    from minirelu.report.page import facts
    from minirelu.training import trainer

    run = new_run(tmp_path, text_file, "run")
    other = new_run(tmp_path, text_file, "other")
    assert mr.train(other)
    assert run.code == other.code and len(run.code) == 1 and len(run.code[0][1]) == 12
    assert not mr.train(run, should_stop=stop_after(6))
    monkeypatch.setattr(trainer, "source_digest", lambda: "0123456789ab")
    assert mr.train(run)
    assert run.code == [run.code[0], (6, "0123456789ab")]
    assert facts(run)["code"].endswith("; changed, from step 6 on 0123456789ab")
    notes = compare([other, run])["notes"]
    assert [note for note in notes if "different code" in note and "0123456789ab" in note]
    assert not [note for note in compare([other, other])["notes"] if "code" in note]
