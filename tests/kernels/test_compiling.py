"""Pieces and threads; and the same bits whether compiled just now or read from the cache."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minirelu as mr
from minirelu.kernels import compiling
from minirelu.threads import _controller, most_threads


def _count(piece, times, scratch):
    if piece == 13:
        raise ValueError("thirteen")
    scratch[0] += 1
    times[piece] += 1


count = compiling.parallel(_count)


def test_every_piece_once():
    for pieces in (0, 1, 2, 12):
        times, scratch = np.zeros(12), np.zeros((most_threads(), 1))
        count(pieces, times, scratch=scratch)
        assert times.tolist() == [1] * pieces + [0] * (12 - pieces)
        assert scratch.sum() == pieces


def test_a_piece_that_fails_is_heard_of_and_the_next_call_works():
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
def test_a_forked_process_has_threads_of_its_own():
    times, scratch = np.zeros(12), np.zeros((most_threads(), 1))
    count(12, times, scratch=scratch)  # so that there are threads
    child = os.fork()
    if child == 0:
        count(12, times, scratch=scratch)
        os._exit(0 if times.sum() == 24 else 1)
    assert os.waitpid(child, 0)[1] == 0


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
