"""One switch, obeyed everywhere: with ``reference`` every number comes from the plain NumPy."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from helpers import ODD, quick_settings, random_params, random_tokens

import minirelu as mr
from minirelu.compute import by_reference
from minirelu.errors import UserError
from minirelu.model.activation_functions import act_fn_names
from minirelu.runs.prepare import create_run
from minirelu.sparsity.drift import drift
from minirelu.training.optimizers import OPTIMIZERS

ROOT = Path(mr.__file__).parent
REFERENCE = [f"model.{f.stem}" for f in sorted((ROOT / "model").glob("*.py"))]
REFERENCE += ["training.optimizers", "training.schedule", "generation"]

# Settings that a function needs to be called at all.
NEEDS: dict[str, dict[str, object]] = {
    **{f"{n}_{way}": {"act_fn": n} for n in act_fn_names() for way in ("forward", "backward")},
    **{row.step.__name__: {"optimizer": name} for name, row in OPTIMIZERS.items()},
    "_normal_cdf": {"act_fn": "gelu"},
    "_largest": {"act_fn": "topk"},
    "l1_penalty": {"l1": 0.01},
    "l1_backward": {"l1": 0.01},
}  # fmt: skip
# What computes no number of a training: names, checks, declarations; and who sees it instead.
NO_NUMBERS = {
    "activation_functions": {"off_below", "act_fn_names", "act_fn_settings", "activation_function",
                             "mark", "has_zeros", "on_means"},
    "activations": {"activation_names", "backward_names", "mlp_names", "check_names",
                    "as_markdown"},
    "hooks": {"as_it_is", "inside", "edited", "edited_backward", "check_edits",
              "before_edit"},  # test_edits.py
    "parameters": {"parameter_shapes", "is_bias", "n_params", "as_parameters"},
    "transformer": {"check_tokens", "attention_params", "mlp_params"},
    "schedule": {"kept_steps", "probe_steps", "history_steps"},
    "generation": {"_draw"},  # a random number generator is among its arguments
}  # fmt: skip


def functions_of(module: str) -> list[str]:
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


TABLE = [
    (module, name)
    for module in REFERENCE
    for name in functions_of(module)
    if name not in NO_NUMBERS.get(module.split(".")[-1], ())
]


def wrong(function: Callable) -> Callable:
    """The same function, but what it returns, or writes, is a bit off."""

    def more(value):
        if isinstance(value, float):
            return value * 1.01
        if isinstance(value, np.ndarray) and value.dtype == bool:
            return ~value
        if isinstance(value, np.ndarray) and value.dtype.kind == "i":
            return value + 1
        if isinstance(value, np.ndarray):  # by other amounts in each place: softmax sees those
            amounts = np.linspace(0, 1, value.size).reshape(value.shape)
            return (value * 1.01 + amounts).astype(value.dtype)
        if isinstance(value, mr.Parameters):
            value.flat *= value.dtype.type(1.01)
            return value
        if hasattr(value, "_replace"):  # UnitActivity
            return value._replace(on=np.zeros_like(value.on))
        if isinstance(value, tuple):
            return (more(value[0]), *value[1:])
        raise TypeError(type(value))

    def replaced(*args, **kwargs):
        result = function(*args, **kwargs)
        if inspect.isgenerator(result):
            return (token + 1 for token in result)
        if result is None:  # writes to its arguments
            written = args[0] if function.__name__.endswith("_step") else args[3]
            written *= 1.01
            return None
        return more(result)

    replaced.__name__, replaced.__signature__ = function.__name__, inspect.signature(function)
    replaced.__dict__.update(function.__dict__)
    return replaced


def everywhere(function: Callable, instead: Callable) -> list:
    """Patches that put one function in another's place, under every name it was imported as."""
    return [
        mock.patch.object(module, name, instead)
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("minirelu")
        for name, value in list(vars(module).items())
        if value is function
    ]


def numbers_of(folder: Path, text: Path, **settings) -> list:
    """Everything that a short training by the reference, its probes and commands come to."""
    model = {"act_fn": settings.pop("act_fn", "relu"), "act_k": 5}
    config = quick_settings(text, compute="reference", steps=3, probe_tokens=64, **settings)
    tables = config.tables()
    tables["model"] |= model
    run = create_run(mr.Config.from_tables(tables), folder)
    assert mr.train(run)
    records = [
        {k: v for k, v in record.items() if k != "tokens_per_second"}
        for kind in ("train", "probe") for record in run.metrics(kind)
    ]  # fmt: skip
    sample = list(mr.generate(run.params(), [1, 2], run.config, 5, temperature=0))
    drifted = [x.tolist() for x in drift(run.params(1), run.probe_tokens[:1], run.config)]
    return [run.params().flat.tolist(), records, sample, str(drifted)]


@pytest.fixture(scope="module")
def short_text(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("text") / "short.txt"
    words = np.random.default_rng(0).choice(["cat", "dog", "sees", "a", "the", "."], 3000)
    file.write_text(" ".join(words), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def expected(short_text, tmp_path_factory) -> Callable[..., list]:
    """What the unchanged reference comes to, by settings."""
    computed: dict[str, list] = {}

    def of(settings: dict) -> list:
        key = str(sorted(settings.items()))
        if key not in computed:
            folder = tmp_path_factory.mktemp("reference") / "run"
            computed[key] = numbers_of(folder, short_text, **settings)
        return computed[key]

    return of


@pytest.mark.parametrize("module, name", TABLE, ids=[f"{m}.{n}" for m, n in TABLE])
def test_a_wrong_reference_function_changes_a_reference_training(
    module, name, expected, short_text, tmp_path
):
    settings = NEEDS.get(name, {})
    right = expected(settings)
    function = getattr(importlib.import_module(f"minirelu.{module}"), name)
    patches = everywhere(function, wrong(function))
    if module == "training.optimizers" and name.endswith("_step"):
        row = str(settings["optimizer"])
        changed = OPTIMIZERS[row]._replace(step=wrong(function))
        patches.append(mock.patch.dict(OPTIMIZERS, {row: changed}))
    for patch in patches:
        patch.start()
    try:
        numbers = numbers_of(tmp_path / "run", short_text, **settings)
    finally:
        mock.patch.stopall()
    assert numbers != right, f"{module}.{name} takes no part in a reference training"


def test_the_reference_and_its_commands_load_no_numba(short_text, tmp_path):
    """Where importing Numba fails, everything works with ``compute = reference``."""
    code = f"""
import sys
sys.modules["numba"] = None  # importing it raises ImportError
from minirelu.cli.main import cli
run = {str(tmp_path / "run")!r}
small = "--preset tiny --steps 2 --d-mlp 16 --n-ctx 16 --probe-tokens 64 --threads 1".split()
small += ["--compute", "reference", "--corpus", {str(short_text)!r}]
for arguments in (
    ["train", *small, "--out", run],
    ["sparsity", run, "--tokens", "64"],
    ["sample", run, "--tokens", "3"],
    ["figure", "drift", run],
    ["estimate", *small],
):
    cli.main(arguments, standalone_mode=False)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("act_fn", ["relu", "relu2", "leaky_relu", "gelu", "topk"])
@pytest.mark.parametrize("bias", [True, False])
def test_reference_and_kernels_agree_for_every_activation_function(act_fn, bias):
    config = mr.ModelConfig(**{**vars(ODD), "act_fn": act_fn, "act_k": 5, "bias": bias})
    params, tokens = random_params(config), random_tokens(config, 3, 9)
    targets = random_tokens(config, 3, 9, seed=1)
    for l1 in (0.0, 0.03):
        loss, grads = mr.loss_and_grads(params, tokens, targets, config, "reference", l1=l1)
        for compute in ("auto", "dense", "sparse"):
            if compute == "sparse" and not config.activation.has_zeros:
                continue
            fast_loss, fast = mr.loss_and_grads(params, tokens, targets, config, compute, l1=l1)
            assert fast_loss == pytest.approx(loss, rel=1e-13)
            np.testing.assert_allclose(fast.flat, grads.flat, rtol=1e-9, atol=1e-13)


def test_impossible_values_of_compute_are_refused():
    gelu = mr.ModelConfig(**{**vars(ODD), "act_fn": "gelu"})
    with pytest.raises(UserError, match="sparse leaves out what is exactly 0, and gelu has no zer"):
        by_reference("sparse", gelu)
    with pytest.raises(UserError, match="'refrence' is not allowed.*did you mean 'reference'"):
        by_reference("refrence", ODD)


def test_a_new_activation_function_needs_only_its_two_functions(short_text, tmp_path):
    """The recipe of CONTRIBUTING.md: the pair, and nothing else."""
    from minirelu.model import activation_functions as home

    source = (
        "import numpy as np\n"
        "def smooth_forward(pre):\n    return np.logaddexp(pre, 0)\n"
        "def smooth_backward(dpost, pre):\n    return dpost / (1 + np.exp(-pre))\n"
    )
    package = tmp_path / "minirelu"
    import shutil

    shutil.copytree(ROOT, package, ignore=shutil.ignore_patterns("__pycache__"))
    file = package / "model" / "activation_functions.py"
    text = file.read_text(encoding="utf-8")
    pair = source.split("\n", 1)[1]
    file.write_text(text.replace("# --- All of them", f"{pair}\n\n# --- All of them"), "utf-8")
    assert "smooth" not in home.act_fn_names()
    code = f"""
from minirelu.check.gradients import gradient_rows
rows = list(gradient_rows(["smooth"]))
assert rows and all(row.fine for row in rows), rows
from minirelu.cli.main import cli
cli.main("train --preset tiny --steps 4 --d-mlp 16 --n-ctx 16 --probe-tokens 64 --act-fn smooth "
         "--out run --corpus".split() + [{str(short_text)!r}], standalone_mode=False)
child = "train --from run --at 4 --steps 6 --act-fn relu --compute reference --out child"
cli.main(child.split(), standalone_mode=False)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "smooth" in (tmp_path / "run" / "config.toml").read_text("utf-8")
