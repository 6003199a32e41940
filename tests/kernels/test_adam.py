"""Adam: Numba against NumPy, by hand, and compiled against itself as plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from minirelu.kernels import adam as fast_adam
from minirelu.training import optimizers as reference_adam


def adam_inputs(n: int, dtype, seed: int = 0):
    rng = np.random.default_rng(seed)
    p, g, m, v = (rng.normal(size=n).astype(dtype) for _ in range(4))
    return p, g, m, np.abs(v)


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 2e-5), (np.float64, 1e-13)])
@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize("beta2", [0.97, 0.9999, 0.99999999])
def test_adam_kernel_equals_the_reference(dtype, rtol, step, beta2):
    how = dict(step=step, lr=1e-2, beta1=0.8, beta2=beta2, eps=1e-5, decay=0.1, g_scale=0.3)
    slow, fast = adam_inputs(1001, dtype), adam_inputs(1001, dtype)
    reference_adam.adam_step(*slow, **how)
    fast_adam.adam_step(*fast, **how)
    for name, a, b in zip("pgmv", slow, fast, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize("module", [reference_adam, fast_adam], ids=["numpy", "numba"])
def test_adam_by_hand(module):
    """Two steps of algorithm 1 of Kingma & Ba, in exact fractions."""
    p, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    for step, g in ((1, 2.0), (2, -1.0)):
        module.adam_step(p, np.array([g]), m, v, step, 0.1, 0.9, 0.99, 0.5, 0.2)
    p1 = 1 - 0.1 * (2 / (2 + 0.5) + 0.2 * 1)
    m2, v2 = 0.9 * 0.2 + 0.1 * -1, 0.99 * 0.04 + 0.01 * 1
    step2 = (m2 / (1 - 0.81)) / (np.sqrt(v2 / (1 - 0.9801)) + 0.5)
    assert m[0] == pytest.approx(m2, rel=1e-14) and v[0] == pytest.approx(v2, rel=1e-14)
    assert p[0] == pytest.approx(p1 - 0.1 * (step2 + 0.2 * p1), rel=1e-14)


@pytest.mark.parametrize("n", [1, fast_adam.BLOCK - 1, fast_adam.BLOCK, 3 * fast_adam.BLOCK + 5])
def test_global_norm_equals_the_reference(n):
    g = np.random.default_rng(n).normal(size=n).astype(np.float32)
    assert fast_adam.global_norm(g) == pytest.approx(
        np.linalg.norm(g.astype(np.float64)), rel=1e-12
    )


def test_global_norm_does_not_overflow_and_keeps_nan_and_inf():
    assert fast_adam.global_norm(np.full(4, 1e30, np.float32)) == pytest.approx(2e30, rel=1e-6)
    assert np.isnan(fast_adam.global_norm(np.array([1.0, np.nan], np.float32)))
    assert np.isinf(fast_adam.global_norm(np.array([1.0, -np.inf], np.float32)))
