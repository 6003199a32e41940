"""Pieces and threads; and the same bits whether compiled just now or read from the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest

import minirelu as mr
from minirelu.kernels import cache, compiling
from minirelu.threads import _controller, most_threads


def _count(piece, times, scratch):
    if piece == 13:
        raise ValueError("thirteen")
    scratch[0] += 1
    times[piece] += 1


count = compiling.parallel(_count)


def test_every_piece_runs_once():
    for pieces in (0, 1, 2, 12):
        times, scratch = np.zeros(12), np.zeros((most_threads(), 1))
        count(pieces, times, scratch=scratch)
        assert times.tolist() == [1] * pieces + [0] * (12 - pieces)
        assert scratch.sum() == pieces


def test_a_failing_piece_raises_and_the_next_call_works():
    times, scratch = np.zeros(40), np.zeros((most_threads(), 1))
    with pytest.raises(ValueError, match="thirteen"):
        count(40, times, scratch=scratch)
    assert times.max() == 1
    count(5, times, scratch=scratch)
    assert times[:5].tolist() == [2] * 5


def test_several_python_threads_may_compute_at_once():
    config = mr.ModelConfig(1, 2, 16, 300, n_ctx=64, d_vocab=90)
    params = mr.init_params(config)
    batches = np.random.default_rng(0).integers(0, 90, (4, 8, 64))
    expected = [mr.loss_and_grads(params, b, b, config)[1].flat.copy() for b in batches]
    blas_threads = [lib["num_threads"] for lib in _controller().info()]
    wrong = []

    def work(i: int) -> None:
        for _ in range(20):
            _, grads = mr.loss_and_grads(params, batches[i], batches[i], config)
            if not np.array_equal(grads.flat, expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout=60)
    assert not any(t.is_alive() for t in threads) and wrong == []
    assert [lib["num_threads"] for lib in _controller().info()] == blas_threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_its_own_threads():
    times, scratch = np.zeros(12), np.zeros((most_threads(), 1))
    count(12, times, scratch=scratch)  # so that there are threads
    child = os.fork()
    if child == 0:
        count(12, times, scratch=scratch)
        os._exit(0 if times.sum() == 24 else 1)
    assert os.waitpid(child, 0)[1] == 0


STALE = """
import numpy as np
from minirelu.kernels.cross_entropy import loss_forward_kernel
from minirelu.kernels.watching import watch_listed
F = 256  # the first piece looks at GROUP of these units, all of them on at the one token
start, token = np.arange(F + 1, dtype=np.int32)[None], np.zeros((1, F), np.uint16)
on, first, total = np.zeros((1, F), np.int32), np.zeros((1, F), np.int32), np.zeros((1, F), int)
watch_listed(1, start, token, np.ones((1, F)), 1, 0.0, 0.0, 1.0, 1.0, on, first, total)
x, nats = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
W_E, dlogits = np.float32([[0], [1]]), np.zeros((1, 512), np.float32)
given = (x, W_E, np.zeros(1, int), dlogits, np.zeros((1, 1), np.float32), nats)
loss_forward_kernel(1, *given, scratch=np.zeros((1, 768), np.float32))
print(on.sum(), round(float(nats[0]), 5))
"""


def test_a_constant_changed_in_another_file_takes_effect(tmp_path: Path):
    """GROUP is used in watching.py, and the exponential's coefficients in cross_entropy.py."""
    package = tmp_path / "minirelu"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(mr.__file__).parent, package, ignore=ignore)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)

    def run() -> tuple[int, float]:
        printed = subprocess.run(
            [sys.executable, "-c", STALE], cwd=tmp_path,
            env=environment, capture_output=True, text=True, check=True, timeout=300,
        ).stdout  # fmt: skip
        on, nats = printed.split()
        return int(on), float(nats)

    def change(file: str, old: str, new: str) -> None:
        path = package / "kernels" / file
        source = path.read_text(encoding="utf-8")
        assert source.count(old) == 1
        path.write_text(source.replace(old, new), encoding="utf-8")

    nats = 1.31326  # ln(1 + e)
    assert run() == (128, nats)
    assert run() == (128, nats), "from the cache"
    change("sparse_mlp.py", "GROUP = 128", "GROUP = 64")
    assert run() == (64, nats)
    change("exp.py", "_ZERO, _ONE, _HALF", "_ZERO, _HALF, _ONE")
    assert run()[0] == 64 and run()[1] != nats
    folders = list((package / "kernels" / "__pycache__").glob("minirelu-*"))
    assert len(folders) == 1, "earlier ones are removed"


def test_the_cache_falls_back_to_a_place_that_can_be_written_to(monkeypatch, tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    source = tmp_path / "kernels"
    shutil.copytree(cache.KERNELS_FOLDER, source, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "KERNELS_FOLDER", source)
    for given, expected in (
        ("", source / "__pycache__"), (tmp_path / "given", tmp_path / "given"),
        (file / "below", source / "__pycache__"),
    ):  # fmt: skip
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(given))
        assert cache.cache_folder.__wrapped__().parent == expected
    monkeypatch.setattr(cache.Path, "mkdir", lambda *_, **__: os.mkdir(file))
    assert cache.cache_folder.__wrapped__() is None


def test_several_copies_of_the_source_may_share_a_cache(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "shared"))
    folders = []
    for name in ("one", "two"):
        source = tmp_path / name
        source.mkdir()
        (source / "adam.py").write_bytes(b"BLOCK = 1\n")
        monkeypatch.setattr(cache, "KERNELS_FOLDER", source)
        folders.append(cache.cache_folder.__wrapped__())
    assert folders[0] != folders[1] and all(f.is_dir() for f in folders)
    (source / "adam.py").write_bytes(b"BLOCK = 1\r\n")
    assert cache.cache_folder.__wrapped__() == folders[1], "only the newline is another"
    (source / "adam.py").write_bytes(b"BLOCK = 2\n")
    assert cache.cache_folder.__wrapped__() != folders[1]
    assert [f.is_dir() for f in folders] == [True, False]


def test_the_cache_of_other_packages_stays_where_it_is(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    compiling.serial(_count)
    assert numba.config.CACHE_DIR == str(tmp_path)


def test_same_bits_from_the_compiler_and_from_the_cache(tmp_path: Path):
    """A first run must not differ from the later ones, not even in the last bit."""
    code = """
import hashlib, numpy as np, minirelu as mr
from minirelu.kernels.adam import global_norm
config = mr.ModelConfig(2, 2, 64, 512, n_ctx=128, d_vocab=1000)
params = mr.init_params(config)
tokens = np.random.default_rng(0).integers(0, 1000, (4, 128))
for mlp in ("dense", "sparse"):
    for _ in range(3):  # so that every rounding error gets everywhere
        loss, grads = mr.loss_and_grads(params, tokens, tokens[:, ::-1], config, mlp)
        params.flat -= grads.flat / global_norm(grads.flat)
    print(repr(loss), hashlib.sha256(grads.flat.tobytes()).hexdigest())
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment, capture_output=True, text=True, check=True, timeout=300,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert list(tmp_path.rglob("*.nbc")), "the first of them has compiled"
    assert runs[0].count("\n") == 2 and runs[0] == runs[1]
