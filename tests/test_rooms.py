"""Rooms: lower ones never import higher ones, and one module alone decides who computes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "minirelu"
# From the bottom to the top; what stands in one line may import each other.
ORDER = (
    ("errors", "intervals", "settings", "source", "threads", "workers"),
    (
        "model",
        "config",
        "text",
        "training.optimizers",
        "training.update",
        "training.remedies",
        "training.rebirth",
        "training.interventions",
    ),
    ("kernels",),
    ("compute", "check", "generation"),
    ("sparsity", "estimate"),
    ("runs", "interop"),
    ("training",),
    ("sweeps",),
    ("death", "specificity"),
    ("pruning",),
    ("claims",),
    ("figures",),
    ("report",),
    ("bench", "cli"),
)
# Whose subject the kernels themselves are.
MAY_IMPORT_KERNELS = ("kernels", "compute", "check", "bench")


def level(module: str) -> int:
    """Of the longest entry of ORDER that the module's name begins with."""
    entries = {
        entry: i
        for i, row in enumerate(ORDER)
        for entry in row
        if f"{module}.".startswith(f"{entry}.")
    }
    assert entries, f"{module} has no place in ORDER"
    return entries[max(entries, key=len)]


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """(module, what it imports) below minirelu, also inside functions, not for types only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minirelu"):
            if node.module == "minirelu":
                yield from ((name, alias.name) for alias in node.names)
            else:
                module = node.module.removeprefix("minirelu.")
                for alias in node.names:
                    below = ROOT / Path(*module.split("."), f"{alias.name}.py")
                    yield name, f"{module}.{alias.name}" if below.exists() else module


FILES = [f for f in sorted(ROOT.rglob("*.py")) if f.parent != ROOT or f.stem[0] != "_"]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_room_imports_a_higher_one(file):
    for module, imported in imports(file):
        if imported != "__version__":
            assert level(imported) <= level(module), f"{module} imports {imported}"


def test_only_compute_check_and_bench_import_kernels():
    importers = {
        module
        for file in FILES
        for module, imported in imports(file)
        if imported.split(".")[0] == "kernels" and imported != "kernels.available"
    }
    assert {m for m in importers if m.split(".")[0] not in MAY_IMPORT_KERNELS} == set()
    assert "compute" in importers


def test_the_core_is_small():
    """A reader can hold it: the model, and the loop that trains it."""
    loop = [ROOT / "training" / name for name in ("trainer.py", "optimizers.py", "schedule.py")]
    files = [*(ROOT / "model").glob("*.py"), *loop]
    lines = sum(len(f.read_text(encoding="utf-8").splitlines()) for f in files)
    assert lines < 2400
