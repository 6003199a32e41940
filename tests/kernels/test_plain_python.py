"""Every kernel without a compiler, as one steps through it, and what a kernel may refer to.

Run as a script, in an environment with ``NUMBA_DISABLE_JIT=1``, this file does the first of them.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType

import numba
import numpy as np
import pytest
from helpers import random_params, random_tokens
from mlp_cases import ROUTES, by_reference, check, inputs

import minirelu as mr
import minirelu.kernels
from minirelu.kernels import adam, compiling, mlp_route
from minirelu.kernels import transformer as kernels
from minirelu.kernels.exp import _exp_float32
from minirelu.kernels.watching import watch
from minirelu.kernels.workspace import Workspace
from minirelu.model.activation_functions import activation_function
from minirelu.model.unit_activity import unit_activity
from minirelu.training import optimizers as reference_adam

MODULES = [
    importlib.import_module(f"minirelu.kernels.{m.name}")
    for m in pkgutil.iter_modules(minirelu.kernels.__path__)
]
KERNELS = [k for k in compiling.KERNELS if k.__module__.startswith("minirelu.kernels.")]


def use_every_kernel() -> None:
    """Compare the results of all of them with the reference, on sizes that plain Python can do."""
    a = inputs(7, 3, 11)
    for act_fn, compute in [*ROUTES, ("relu", "auto")]:
        check(a, compute, act_fn, act_k=4, l1=0.1)
        y, off = np.zeros_like(a["x"]), activation_function(act_fn, act_k=4).off
        kept = mlp_route.mlp_forward(a["x"], a, y, compute, Workspace(), "test", act_fn, 4)
        actual = watch(kept, 1, 7, 11, off)
        expected = unit_activity(by_reference(a, act_fn, 4)["post"][None], off)
        np.testing.assert_array_equal(actual.on, expected.on)
        np.testing.assert_array_equal(actual.first, expected.first)
        np.testing.assert_allclose(actual.total, expected.total, atol=7)

    config = mr.ModelConfig(1, 2, 4, 5, n_ctx=6, d_vocab=13)
    params, tokens = random_params(config), random_tokens(config, 2, 6)
    logits, acts = mr.forward(params, tokens, config)
    loss, dlogits = mr.cross_entropy(logits, tokens[:, ::-1])
    expected = mr.backward(params, acts, dlogits, config)
    grads = mr.Parameters(config, params.dtype)
    given = (params, tokens, tokens[:, ::-1], config, "auto", Workspace(), grads)
    assert np.isclose(kernels.loss_and_grads(*given)[0], loss, rtol=1e-12)
    np.testing.assert_allclose(grads.flat, expected.flat, rtol=1e-10, atol=1e-12)

    how = dict(step=3, lr=0.01, beta1=0.8, beta2=0.9, eps=1e-5, decay=0.1, g_scale=0.3)
    state = np.random.default_rng(0).uniform(1, 2, (4, 9))
    expected = state.copy()
    adam.adam_step(*state, **how)
    reference_adam.adam_step(*expected, **how)
    np.testing.assert_allclose(state, expected, rtol=1e-13)
    assert np.isclose(adam.global_norm(state[1]), np.linalg.norm(state[1]), rtol=1e-13)


def main() -> None:
    assert numba.config.DISABLE_JIT
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    use_every_kernel()
    sys.setprofile(None)
    threading.setprofile(None)
    never = [f"{k.__module__}.{k.__name__}" for k in KERNELS if k.__code__ not in called]
    assert not never, f"kernels that were not called: {never}"
    print(len(KERNELS), "kernels")


def test_every_kernel_runs_as_plain_python_and_equals_the_reference():
    root, tests = Path(mr.__file__).parents[1], Path(__file__).parents[1]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (root, tests)))
    result = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", __file__],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{len(KERNELS)} kernels\n" and len(KERNELS) > 20


def test_the_exponential_of_compiled_code_runs_as_plain_python_too():
    for x in np.float32([-100, -87, -3.2, 0, 0.1, 20]):
        assert _exp_float32(x) == pytest.approx(np.exp(x) * (x >= -87), rel=3e-7)


def from_outside(module: object) -> set[str]:
    """Names in a module that minirelu's other folders define, or that are computed from such."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minirelu"):
            if not node.module.startswith("minirelu.kernels"):
                names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            if names & {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}:
                names |= {n.id for t in node.targets for n in ast.walk(t) if hasattr(n, "id")}
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.rpartition(".")[2])
def test_kernels_refer_to_nothing_outside_of_the_folder_that_is_digested(module):
    outside = from_outside(module)
    for kernel in KERNELS:
        if kernel.__module__ == module.__name__:
            assert not outside.intersection(kernel.__code__.co_names), kernel.__name__


if __name__ == "__main__":
    main()
