"""Every tutorial and solution runs as it stands; every notebook is in step with its source."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import build
import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "tutorials"
SOURCES = sorted(TUTORIALS.glob("[0-9][0-9]_*.py"))
SOLUTIONS = sorted((TUTORIALS / "solutions").glob("[0-9][0-9]_*.py"))
names = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def run(program: Path, folder: Path) -> subprocess.CompletedProcess:
    """Run a program from a folder, where there is no display and pyplot would need one."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "tkagg"}
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(program)],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env=environment,
        timeout=600,
    )


def test_every_tutorial_has_solutions():
    assert len(SOURCES) >= 2
    assert [s.name for s in SOURCES] == [s.name for s in SOLUTIONS]


@names
def test_tutorial_runs(source, tmp_path):
    """With the exercises unanswered, from an empty folder, which stays empty."""
    result = run(source, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    assert result.stdout.count("not answered yet.") >= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", SOLUTIONS, ids=lambda source: source.stem)
def test_solution_is_right(source, tmp_path):
    result = run(source, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(": right.") >= 2
    assert "not yet" not in result.stdout and "not answered" not in result.stdout


@pytest.mark.parametrize(
    "name, right, wrong, shorter",
    [
        ("01", "abs(best_possible - 1.00) < 0.01", "abs(best_possible - 1.10) < 0.01", ()),
        ("02", "assert best < 1e-8", "assert best < 1e-15", ()),
        ("03", "correct=False)[0], 2) == 3.16", "correct=False)[0], 2) == 3.17", ()),
        ("04", "round(product / 1e9, 2) == 1.07", "round(product / 1e9, 2) == 1.08", ()),
        ("05", "B * T == 8192", "B * T == 8193", ('"steps": 400', '"steps": 1')),
    ],
)
def test_a_wrong_number_stops_a_tutorial(name, right, wrong, shorter, tmp_path):
    """The text's numbers are asserted: a copy with another one stops there."""
    folder = shutil.copytree(TUTORIALS, tmp_path / "copy")
    (program,) = folder.glob(f"{name}_*.py")
    text = program.read_text(encoding="utf-8")
    for old, new in filter(None, [(right, wrong), shorter]):
        assert text.count(old) == 1
        text = text.replace(old, new)
    program.write_text(text, encoding="utf-8")
    result = run(program, tmp_path)
    assert result.returncode == 1
    assert "AssertionError" in result.stderr and wrong in result.stderr


@names
def test_notebook_is_in_step(source):
    assert build.in_step(source), f"python tutorials/build.py {source.name[:2]}"


@names
def test_notebook_was_run_and_is_small(source):
    notebook = source.with_suffix(".ipynb")
    assert notebook.stat().st_size < 600_000
    code = [c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if "outputs" in c]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    text = "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")
    assert not re.search(r"/tmp/|/home/|/root/|/Users/|[A-Z]:\\\\", text), "a path of one machine"


def test_a_stale_notebook_is_named(tmp_path, monkeypatch, capsys):
    for path in (SOURCES[0], SOURCES[0].with_suffix(".ipynb")):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert build.main(["--check"]) == 0
    source = tmp_path / SOURCES[0].name
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("A Transformer", "The Transformer", 1), encoding="utf-8")
    assert build.main(["--check"]) == 1
    assert "is out of step: python tutorials/build.py 01" in capsys.readouterr().out
    source.with_suffix(".ipynb").unlink()
    assert build.main(["--check", "1"]) == 1


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jupytext", None)
    assert build.main(["01"]) == 2
    error = capsys.readouterr().err
    assert "jupytext" in error and "pip install -e '.[tutorials]'" in error
    assert len(error.splitlines()) == 1


def test_an_unknown_number_is_named(capsys):
    assert build.main(["77"]) == 2
    assert "there is no tutorial 77; there are 01, 02" in capsys.readouterr().err


def test_the_parser_agrees_with_jupytext():
    jupytext = pytest.importorskip("jupytext")
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        notebook = jupytext.reads(text, fmt="py:percent")
        in_notebook = [(cell.cell_type, cell.source.strip("\n")) for cell in notebook.cells]
        assert build.cells(text) == in_notebook


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda page: page.name)
def test_links_exist(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_tutorials_readme_names_every_tutorial():
    text = (TUTORIALS / "README.md").read_text(encoding="utf-8")
    for page in [*SOURCES, *TUTORIALS.glob("*.md")]:
        assert page.name == "README.md" or f"({page.name})" in text
