"""The recipes of CONTRIBUTING.md, followed to the letter on a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minirelu as mr

ROOT = Path(mr.__file__).parent
TEXT = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(heading: str) -> list[str]:
    """Python blocks of a section."""
    section = TEXT.split(f"### {heading}\n")[1].split("\n### ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.S)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The package with everything that the recipes add."""
    folder = tmp_path_factory.mktemp("recipes")
    package = folder / "minirelu"
    shutil.copytree(ROOT, package, ignore=shutil.ignore_patterns("__pycache__"))

    def insert(file: str, before: str, code: str) -> None:
        text = (package / file).read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{before!r} in {file}"
        (package / file).write_text(text.replace(before, f"{code}{before}"), encoding="utf-8")

    (pair,) = blocks("An activation function")
    insert("model/activation_functions.py", "# --- All of them, by name", f"{pair}\n\n")
    function, row = blocks("A measure")
    insert("sparsity/measures.py", "# In the order in which they are shown.\n", f"{function}\n\n")
    insert("sparsity/measures.py", "    )\n}\n", row)
    function, row = blocks("An optimizer")
    insert("training/optimizers.py", "class Optimizer(NamedTuple)", f"{function}\n\n")
    insert("training/optimizers.py", "}\n\n\ndef global_norm", row)
    kind, row = blocks("An intervention")
    insert("training/interventions.py", "INTERVENTIONS: dict", f"{kind}\n\n")
    insert("training/interventions.py", "}\n\n\ndef parse_interventions", row)
    (row,) = blocks("A ranking of hidden units")
    insert("pruning/rankings.py", "}\n\n\ndef evidence", row)
    figure, kind, caption = blocks("A figure")
    (package / "figures" / "silent.py").write_text(figure, encoding="utf-8")
    insert("figures/__init__.py", "KINDS: dict", "from minirelu.figures import silent\n\n")
    insert("figures/__init__.py", '    "drift": Kind(', kind)
    insert("figures/captions.py", '    "drift": ', caption)
    return folder


def test_every_recipe_works_as_written(copy, text_file):
    code = f"""
from minirelu.check.gradients import gradient_rows
from minirelu.cli.main import cli
import minirelu as mr
rows = list(gradient_rows(["softplus"]))
assert rows and all(row.fine for row in rows), rows
small = "--preset tiny --steps 4 --d-mlp 16 --n-ctx 16 --probe-tokens 64 --compute reference"
added = "--act-fn softplus --optimizer signum --learning-rate 1e-3 --out run --corpus"
intervene = ["--intervene", "clip_update length=0.01 first=2"]
cli.main(["train", *small.split(), *intervene, *added.split(), {str(text_file)!r}],
         standalone_mode=False)
run = mr.Run.open("run")
before, after = run.params(2).flat, run.params(4).flat
assert 0 < float(abs(after - before).max()) and float(((after - before)**2).sum()**.5) < 0.0201
assert len(run.probes()[-1]["always_on"]) == 2
cli.main(["figure", "silent", "run"], standalone_mode=False)
cli.main(["sparsity", "run", "--json", "run.json"], standalone_mode=False)
pruning = ["--by", "magnitude", "--tokens", "64", "--figure", "pruned.png"]
cli.main(["prune", "run", *pruning], standalone_mode=False)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONIOENCODING": "utf-8"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^magnitude +[0-9]", done.stdout, re.M)
    assert "always_on" in (copy / "run.json").read_text(encoding="utf-8")
    assert (copy / "run" / "figures" / "silent.png").exists()
    assert "silent" in (copy / "run" / "report.html").read_text(encoding="utf-8")


def test_untying_the_unembedding_works_as_written(tmp_path):
    package = tmp_path / "minirelu"
    shutil.copytree(ROOT, package, ignore=shutil.ignore_patterns("__pycache__"))
    shape, in_forward, in_backward, in_cached = blocks("Untie the unembedding")

    def replace(file: str, before: str, after: str) -> None:
        text = (package / file).read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{before!r} in {file}"
        (package / file).write_text(text.replace(before, after), encoding="utf-8")

    line = "    if not config.bias:\n"
    replace("model/parameters.py", line, shape + line)
    tied = 'unembedding_forward(normalized, params["embed.W_E"])  # (B, T, V)\n'
    replace("model/transformer.py", f"    logits = {tied}", in_forward)
    text = (package / "model" / "transformer.py").read_text(encoding="utf-8")
    start = text.index("    # logits = layernorm(x) @ W_E.T\n")
    end = text.index('    grads.store("embed.W_E", dW_E)\n') + len(
        '    grads.store("embed.W_E", dW_E)\n'
    )
    replace("model/transformer.py", text[start:end], in_backward)
    cached = 'unembedding_forward(norm(params, "ln_final", x, config), params["embed.W_E"])\n'
    replace("generation.py", f"    return {cached}", in_cached)
    code = (
        "from minirelu.check.gradients import cache_rows, gradient_rows, random_model\n"
        "rows = [*gradient_rows(['relu']), *cache_rows()]\n"
        "assert 'unembed.W_U' in random_model()[1] and all(row.fine for row in rows), rows\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
