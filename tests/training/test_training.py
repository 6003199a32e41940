"""Training: golden first steps, schedules, accumulation, resume, and what stops it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import quick_settings

import minirelu as mr
from minirelu.compute import global_norm, update
from minirelu.kernels.workspace import Workspace
from minirelu.runs import checkpoint as checkpoint_module
from minirelu.runs import files
from minirelu.runs.checkpoint import checkpoint_steps, thin_out
from minirelu.runs.prepare import create_run
from minirelu.sparsity.measure import measure
from minirelu.text.batches import batch
from minirelu.training import trainer
from minirelu.training.schedule import kept_steps, learning_rate, probe_steps


def new_run(tmp_path: Path, text_file: Path, name: str = "run", **train) -> mr.Run:
    return create_run(quick_settings(text_file, **train), tmp_path / name)


def result(run: mr.Run) -> tuple[bytes, list[dict]]:
    """Everything that must not depend on interruptions: weights, moments, records, counts."""
    last = run.checkpoints / f"step_{run.steps[-1]:06d}"
    weights = (last / "model.safetensors").read_bytes()
    moments = (last / "optimizer.safetensors").read_bytes()
    records = [
        {k: v for k, v in json.loads(line).items() if k != "tokens_per_second"}
        for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    counts = [run.counts(p["step"]).tokens_on[0].tolist() for p in run.probes()]
    return weights + moments, [*records, {"counts": counts}]


def stop_after(n: int):
    """``should_stop`` that says yes after n steps."""
    calls = iter(range(10**9))
    return lambda: next(calls) >= n - 1


# --- what is computed


@pytest.mark.parametrize("mlp", ["reference", "dense", "sparse"])
def test_golden_first_steps(mlp):
    """Losses and gradient norms of the first steps, as first measured.

    If this fails, something that decides results has changed: initial weights, batch order,
    forward, backward, clipping, Adam or the schedule. Changing the numbers is legitimate only if
    such a change was meant, and then it belongs in the change's description.
    """
    config = mr.ModelConfig(n_layers=2, n_heads=2, d_model=16, d_mlp=48, n_ctx=12, d_vocab=40)
    settings = mr.TrainConfig(
        steps=5, batch_size=4, learning_rate=3e-3, warmup_steps=2, clip_norm=0.5, compute=mlp
    )
    tokens = (np.arange(500) ** 2 + np.arange(500) // 7) % 40
    params = mr.init_params(config, seed=7)
    m, v = mr.Parameters(config), mr.Parameters(config)
    found = []
    for step in range(1, 6):
        sequences = batch(tokens, step, 4, 12, seed=7)
        loss, grads = mr.loss_and_grads(params, sequences[:, :-1], sequences[:, 1:], config, mlp)
        norm = global_norm(grads)
        update(params, grads, dict(m=m, v=v), step, learning_rate(step, settings), settings, norm)
        found.append((loss, norm))
    np.testing.assert_allclose(found, GOLDEN, rtol=2e-5)


GOLDEN = [  # (loss, gradient norm) of steps 1 to 5
    (3.687370, 1.493634),
    (3.697559, 1.235442),
    (3.668665, 0.872071),
    (3.632183, 0.827323),
    (3.721364, 0.781889),
]


def test_fifty_steps_by_every_route(text_file, tmp_path):
    """Rounding differs between the routes, and grows; what is learned does not differ."""
    losses = {}
    for mlp in ("reference", "sparse", "dense", "auto"):
        settings = quick_settings(text_file, steps=50, compute=mlp)
        run = create_run(settings, tmp_path / mlp)
        assert mr.train(run)
        losses[mlp] = [record["loss"] for record in run.metrics("train")]
    assert losses["reference"][-1] < losses["reference"][0] - 0.5
    for mlp, found in losses.items():
        np.testing.assert_allclose(found, losses["reference"], rtol=2e-5, err_msg=mlp)


def test_a_step_uses_its_own_batch(finished_run):
    """Any step can be made again from the folder: its weights before, and the batch by number."""
    run, settings = finished_run, finished_run.settings.train
    for before in (0, 1, 2, 8):  # steps of which there are weights
        step = before + 1
        sequences = batch(run.train_tokens, step, settings.batch_size, 16, settings.seed)
        loss, _ = mr.loss_and_grads(
            run.params(before), sequences[:, :-1], sequences[:, 1:], run.config
        )
        assert run.metrics("train")[before]["loss"] == pytest.approx(loss, rel=1e-6)


def test_clipping_and_decay():
    """A long gradient is shortened; matrices decay, vectors don't."""
    config = mr.ModelConfig(1, 1, 4, 6, n_ctx=4, d_vocab=5)
    settings = mr.TrainConfig(clip_norm=0.5, weight_decay=0.25, beta1=0.0, beta2=0.0, adam_eps=1.0)
    rng = np.random.default_rng(0)
    params, grads = mr.Parameters(config, np.float64), mr.Parameters(config, np.float64)
    params.flat[:], grads.flat[:] = rng.normal(size=(2, params.flat.size))
    before = {name: p.copy() for name, p in params.items()}
    m, v = mr.Parameters(config, np.float64), mr.Parameters(config, np.float64)
    norm = global_norm(grads)
    assert norm > 0.5
    update(params, grads, dict(m=m, v=v), 1, 0.1, settings, norm)
    for name, p in params.items():
        g = grads[name] * (0.5 / norm)
        decay = 0.25 if p.ndim == 2 else 0.0
        # without memory (betas 0) Adam's step is g / (|g| + eps)
        expected = before[name] - 0.1 * (g / (np.abs(g) + 1.0) + decay * before[name])
        np.testing.assert_allclose(p, expected, rtol=1e-12, err_msg=name)


def test_a_short_gradient_is_not_clipped():
    config = mr.ModelConfig(1, 1, 4, 6, n_ctx=4, d_vocab=5)
    for clip_norm in (0.0, 1e9):
        settings = mr.TrainConfig(clip_norm=clip_norm)
        params, grads = mr.Parameters(config), mr.Parameters(config)
        grads.flat[:] = 3.0
        m, v = mr.Parameters(config), mr.Parameters(config)
        update(params, grads, dict(m=m, v=v), 1, 0.1, settings, global_norm(grads))
        np.testing.assert_allclose(m.flat, 0.3, rtol=1e-5)


def test_micro_batches_give_the_gradient_of_the_batch(odd):
    params = mr.init_params(odd, dtype=np.float64)
    sequences = np.random.default_rng(0).integers(0, 101, (6, 10))
    whole = trainer.accumulated_grads(
        params, sequences, odd, mr.TrainConfig(batch_size=6), Workspace()
    )
    for parts in (2, 3, 6):
        settings = mr.TrainConfig(batch_size=6, micro_batches=parts)
        loss, _, grads = trainer.accumulated_grads(params, sequences, odd, settings, Workspace())
        assert loss == pytest.approx(whole[0], rel=1e-12)
        np.testing.assert_allclose(grads.flat, whole[2].flat, rtol=1e-9, atol=1e-14)


def test_learning_rate():
    c = mr.TrainConfig(steps=100, learning_rate=2.0, warmup_steps=4, final_lr=0.1)
    assert [learning_rate(s, c) for s in (1, 2, 4)] == [0.5, 1.0, 2.0]
    assert learning_rate(52, c) == pytest.approx(1.1) and learning_rate(100, c) == pytest.approx(
        0.2
    )
    constant = dataclasses.replace(c, schedule="constant")
    assert learning_rate(100, constant) == 2.0
    assert learning_rate(1, dataclasses.replace(c, warmup_steps=0)) == pytest.approx(2.0, rel=1e-3)


def test_probes_fall_on_the_grid():
    steps = probe_steps(mr.TrainConfig(steps=700, probe_every=100))
    assert steps == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 700]
    assert probe_steps(mr.TrainConfig(steps=3)) == [0, 1, 2, 3]


def test_fewer_weights_are_kept_when_disk_is_short():
    steps = [0, 1, 2, 4, 8, 16, 32]
    assert kept_steps(steps, 10, budget=70) == set(steps)
    assert kept_steps(steps, 10, budget=69) == {32, 8, 2, 0}
    assert kept_steps(steps, 10, budget=0) == {32}


def test_training_learns(finished_run, text_file, tmp_path):
    """A model of text made of ten words comes near to its entropy, ln 10 per word."""
    run = new_run(tmp_path, text_file, steps=150, learning_rate=0.02, batch_size=16)
    mr.train(run)
    marks, last = run.corpus["baselines"], run.probes()[-1]
    assert last["val_loss"] < marks["unigram"] - 0.1


# --- what is written


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


def test_everything_reaches_the_disk_before_it_gets_its_name(tmp_path, text_file, monkeypatch):
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


def test_records(finished_run):
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


def test_folder_is_as_documented(finished_run):
    folder = finished_run.folder
    for name in ("config.toml", "tokenizer.json", "corpus.json", "metrics.jsonl", "probe.npy"):
        assert (folder / name).is_file()
    assert finished_run.steps == [0, 1, 2, 4, 8, 12]
    with_optimizer = checkpoint_steps(finished_run.checkpoints, resumable=True)
    assert with_optimizer == [8, 12]  # the last two only
    assert [p.name for p in folder.rglob(".*")] == []  # nothing half-written is left
    assert finished_run.corpus["sha256"] and finished_run.made_with["numpy"]
    assert mr.Run.open(folder).settings == finished_run.settings


def test_a_probe_in_parts_is_the_same(finished_run):
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


# --- resume


@pytest.fixture(scope="module")
def undisturbed(text_file, tmp_path_factory) -> tuple[bytes, list[dict]]:
    run = new_run(tmp_path_factory.mktemp("undisturbed"), text_file)
    assert mr.train(run)
    return result(run)


@pytest.mark.parametrize("at", [1, 3, 8, 11])
def test_resumed_equals_undisturbed(tmp_path, text_file, undisturbed, at):
    run = new_run(tmp_path, text_file)
    assert not mr.train(run, should_stop=stop_after(at))
    assert run.steps[-1] == at
    assert mr.train(mr.Run.open(run.folder))
    assert result(run) == undisturbed


def test_stopped_after_every_step_equals_undisturbed(tmp_path, text_file, undisturbed):
    run = new_run(tmp_path, text_file)
    for _ in range(11):
        assert not mr.train(mr.Run.open(run.folder), should_stop=lambda: True)
    assert mr.train(mr.Run.open(run.folder))
    assert result(run) == undisturbed


@pytest.mark.parametrize("seed", range(4))
def test_crash_anywhere_equals_undisturbed(tmp_path, text_file, undisturbed, monkeypatch, seed):
    """Whatever write a crash falls on: the folder is valid, and the end is the same."""
    run = new_run(tmp_path, text_file)
    rng = np.random.default_rng(seed)

    class Crash(BaseException):
        pass

    left = [int(rng.integers(1, 60))]

    def crashing(f):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return f(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for home, name in ((files, "sync"), (trainer, "write_record"), (shutil, "rmtree")):
            patch.setattr(home, name, crashing(getattr(home, name)))
        patch.setattr(Path, "unlink", crashing(Path.unlink))
        try:
            mr.train(run)
        except Crash:
            pass
    assert left[0] <= 0
    with open(run.folder / "metrics.jsonl", "ab") as f:
        f.write(b'{"kind": "train", "st')  # a line cut short
    mr.Run.open(run.folder).probes()
    assert mr.train(mr.Run.open(run.folder))
    assert result(run) == undisturbed


@pytest.mark.parametrize("moment", [3, 11, 22, 37])
def test_killed_equals_undisturbed(tmp_path, text_file, undisturbed, moment):
    """The process ends at once, without any tidying up, in the middle of writing."""
    run = new_run(tmp_path, text_file)
    code = f"""
import os, minirelu as mr
from minirelu.runs import files
from minirelu.training import trainer
left = {moment}
def dying(f):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return f(*args, **kwargs)
    return wrapped
os.replace, os.rename, os.fsync = dying(os.replace), dying(os.rename), dying(os.fsync)
trainer.write_record = dying(trainer.write_record)
mr.train(mr.Run.open({str(run.folder)!r}))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert mr.train(mr.Run.open(run.folder))
    assert result(run) == undisturbed
    assert [p.name for p in run.folder.rglob(".*")] == []  # what was half-written is gone


def test_a_second_training_of_a_finished_run_changes_nothing(tmp_path, text_file, undisturbed):
    run = new_run(tmp_path, text_file)
    assert mr.train(run) and mr.train(run)
    assert result(run) == undisturbed


def test_resume_refuses_changed_settings(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(3))
    file = run.folder / "config.toml"
    changed = file.read_text(encoding="utf-8").replace("seed = 0", "seed = 1")
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(ValueError, match="train.seed: 0, not 1"):
        mr.train(mr.Run.open(run.folder))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "foreign"])
def test_damaged_checkpoints_are_refused_by_name(tmp_path, text_file, file, damage):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    victim = run.checkpoints / "step_000012" / file
    content = bytearray(victim.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[-9] ^= 1
    else:
        content = b"a file of something else"
    victim.write_bytes(content)
    with pytest.raises(ValueError, match=f"step_000012.*{file}.*damaged"):
        mr.train(mr.Run.open(run.folder))
    # what the message advises works
    shutil.rmtree(victim.parent)
    assert mr.train(mr.Run.open(run.folder))


def test_checkpoint_of_another_model_is_refused(tmp_path, text_file, finished_run):
    settings = quick_settings(text_file)
    other = dataclasses.replace(settings, model=dataclasses.replace(settings.model, d_mlp=31))
    run = create_run(other, tmp_path / "other")
    shutil.copytree(finished_run.checkpoints, run.checkpoints, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="model.d_mlp: 32, not 31"):
        mr.train(run)
    with pytest.raises(ValueError, match="blocks.0.mlp.W_in has shape"):
        run.params()
    run.settings = dataclasses.replace(
        settings, model=dataclasses.replace(settings.model, d_mlp=1 << 22, d_model=1 << 16)
    )
    with pytest.raises(ValueError, match="the settings call for"):  # refused before memory is taken
        run.params()


@pytest.mark.parametrize("change", ["step", "metrics_bytes", "config"])
def test_changed_state_is_noticed(tmp_path, text_file, change):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    file = run.checkpoints / "step_000012" / "state.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    state[change] = 7
    file.write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ValueError, match="state.json is damaged"):
        mr.train(run)


def test_checkpoint_under_the_name_of_another_step_is_noticed(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(8))
    (run.checkpoints / "step_000008").rename(run.checkpoints / "step_000010")
    for use in (lambda: mr.train(run), lambda: run.params(10)):
        with pytest.raises(ValueError, match="step_000010.*it belongs to step 8"):
            use()


@pytest.mark.parametrize("missing", ["optimizer.safetensors", "state.json"])
def test_incomplete_checkpoint_is_made_again(tmp_path, text_file, undisturbed, missing):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    (run.checkpoints / "step_000012" / missing).unlink()
    assert mr.train(run)
    assert result(run) == undisturbed


@pytest.mark.filterwarnings("ignore:.*encountered in")
@pytest.mark.parametrize("step", [0, 4])
def test_loss_that_is_not_finite_at_a_probe(tmp_path, text_file, step):
    run = new_run(tmp_path, text_file)
    state = trainer.load(run)
    state.step = step
    state.params["ln_final.w"][2] = np.inf
    with pytest.raises(ValueError, match=f"after step {step}: the loss is nan, first in ln_f"):
        trainer.probe(run, state, Workspace())


@pytest.mark.parametrize(
    "file, content",
    [
        ("metrics.jsonl", b"[]\n"),
        ("metrics.jsonl", b'{"kind": "probe"}\n'),
        ("metrics.jsonl", b"\xff\n"),
        ("metrics.jsonl", b'{"kind": "probe", "step": 1, "tokens": 1, "val_loss": 1.0, '
         b'"probe_tokens": 1, "batch_tokens": 1, "per_token": [1]}\n'),
        ("corpus.json", b"{}"),
        ("corpus.json", b"[" * 100_000),
        ("tokens/train.npy", b""),
        ("probe.npy", b"\x93NUMPY\x01\x00\x02\x00{("),
    ],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path, finished_run, file, content):
    run = mr.Run(Path(shutil.copytree(finished_run.folder, tmp_path / "r")), finished_run.settings)
    (run.folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=Path(file).name):
        assert [run.probes(), run.corpus, run.train_tokens, run.probe_tokens]


@pytest.mark.parametrize(
    "file, array",
    [
        ("tokens/train.npy", np.arange(9)),
        ("tokens/train.npy", np.arange(500.0)),
        ("tokens/train.npy", np.array(3)),
        ("probe.npy", np.arange(500)),
        ("probe.npy", np.zeros((3, 9), int)),
    ],
)
def test_token_files_of_the_wrong_kind_are_named(tmp_path, finished_run, file, array):
    run = mr.Run(Path(shutil.copytree(finished_run.folder, tmp_path / "r")), finished_run.settings)
    np.save(run.folder / file, array)
    with pytest.raises(ValueError, match=f"{Path(file).name} is damaged"):
        assert [run.train_tokens, run.probe_tokens]


def test_counts_of_another_model_are_named(tmp_path, finished_run):
    settings = finished_run.settings
    other = dataclasses.replace(settings, model=dataclasses.replace(settings.model, d_mlp=31))
    with pytest.raises(ValueError, match="step_000012.npz is damaged: tokens_on.0"):
        mr.Run(finished_run.folder, other).counts(12)


def test_state_that_is_none(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    (run.checkpoints / "step_000012" / "state.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="state.json is damaged"):
        mr.train(run)


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    code = f"import minirelu as mr; mr.train(mr.Run.open({str(run.folder)!r}))"
    answers = []

    def second() -> bool:
        process = [sys.executable, "-c", code]
        answers.append(subprocess.run(process, capture_output=True, text=True).stderr)
        return True

    mr.train(run, should_stop=second)
    assert "is being trained by another process" in answers[0]
    assert mr.train(run)  # free again


def test_missing_metrics_are_noticed(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(5))
    (run.folder / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="metrics.jsonl is damaged: it is shorter"):
        mr.train(run)


# --- what stops it


def test_nan_names_step_and_tensor(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(8))
    state = trainer.load(run)
    state.params["blocks.1.mlp.b_in"][3] = np.nan
    with pytest.raises(ValueError, match="step 9: the loss is nan, first in blocks.1.mlp.b_in"):
        trainer.train_step(run, state, Workspace())


@pytest.mark.filterwarnings("ignore:.*encountered in")
def test_overflow_names_the_activation(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    state = trainer.load(run)
    state.params["blocks.0.mlp.W_in"][:] = 1e38
    state.params["blocks.0.ln2.b"][:] = 10.0
    with pytest.raises(ValueError, match="step 1: .* first in blocks.0.mlp.hook_pre"):
        trainer.train_step(run, state, Workspace())


def test_divergence_keeps_the_last_good_weights(tmp_path, text_file):
    run = new_run(tmp_path, text_file, learning_rate=10.0, clip_norm=0.0, weight_decay=10.0,
                  warmup_steps=0, steps=500)  # fmt: skip
    with pytest.raises(ValueError, match=r"training stopped, the weights of step \d+ are kept"):
        mr.train(run)
    assert np.isfinite(run.params().flat).all()


def test_full_disk_while_saving_keeps_the_last_checkpoint(tmp_path, text_file, monkeypatch):
    from safetensors import SafetensorError

    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(5))

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", full)
        with pytest.raises(ValueError) as e:
            mr.train(run)
    assert "the disk is full" in str(e.value) and "step 5 is intact" in str(e.value)
    assert run.steps[-1] == 5
    assert mr.train(run)


def test_thinning_out_keeps_what_it_is_told(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    thin_out(run.checkpoints, keep_weights={1, 4})
    assert run.steps == [1, 4, 8, 12]  # 8 and 12 can be resumed from


def test_counts_file_that_claims_too_much_is_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as z, z.open("tokens_on.0.npy", "w") as f:
        header = {"descr": "<i8", "fortran_order": False, "shape": (1 << 50,)}
        np.lib.format.write_array_header_1_0(f, header)
    with pytest.raises(ValueError, match="bad.npz is damaged: an array claims more"):
        files.read_arrays(tmp_path / "bad.npz")
    np.savez(tmp_path / "pickled.npz", a=np.array([object()]))
    with pytest.raises(ValueError, match="pickled.npz is damaged"):
        files.read_arrays(tmp_path / "pickled.npz")
