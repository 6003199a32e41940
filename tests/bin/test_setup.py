"""The first-use set-up of bin/, with an interpreter that only pretends: quick, and no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minirelu as mr

pytestmark = pytest.mark.skipif(os.name == "nt", reason="bin/ is for POSIX shells")

# Does what a Python does for bin/: tells its version, makes environments, installs, runs modules.
PRETENDER = """#!/bin/sh
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo venv >>"$LOG" ;;
    "-m pip") case "$3" in
        install) echo "install $6" >>"$LOG"; [ -z "$BREAK" ] ;;
        *) ;;
    esac ;;
    "-m minirelu") shift 2; echo "ran: $*" ;;
    "-m pytest") shift 2; echo "tested: $*" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that has only bin/ and setup.cfg, in a folder with a space in its name."""
    root = tmp_path / "a checkout"
    source = Path(__file__).parents[2]
    shutil.copytree(source / "bin", root / "bin")
    shutil.copy(source / "setup.cfg", root)
    pretender = tmp_path / "pretender"
    pretender.write_text(PRETENDER, encoding="utf-8")
    pretender.chmod(0o755)
    return root


def run(checkout: Path, *arguments: str, script: str = "minirelu", broken: bool = False):
    """Run a script of bin/ from elsewhere; return its result, and what it had done to set up."""
    log = checkout.parent / "log"
    log.write_text("", encoding="utf-8")
    env = {**os.environ, "MINIRELU_PYTHON": str(checkout.parent / "pretender"), "LOG": str(log)}
    result = subprocess.run(
        [str(checkout / "bin" / script), *arguments],
        capture_output=True, text=True, cwd="/", env={**env, "BREAK": "1" if broken else ""},
    )  # fmt: skip
    return result, [line.split()[0] for line in log.read_text(encoding="utf-8").splitlines()]


def test_only_the_first_call_sets_up(checkout):
    result, done = run(checkout, "train", "--out", "my run")
    assert result.stdout == "ran: train --out my run\n" and done == ["venv", "install"]
    assert "setting up" in result.stderr
    result, done = run(checkout, "--help")
    assert result.stdout == "ran: --help\n" and done == [] and result.stderr == ""


def test_a_symlink_to_the_script_works(checkout):
    (checkout.parent / "link").symlink_to("a checkout/bin/minirelu")
    (checkout.parent / "link2").symlink_to(checkout.parent / "link")
    run(checkout, "train")
    for link in ("link", "link2"):
        result = subprocess.run(
            [str(checkout.parent / link), "x"], capture_output=True, text=True, cwd="/"
        )
        assert result.stdout == "ran: x\n", result.stderr


def test_an_interrupted_set_up_is_repeated(checkout):
    result, _ = run(checkout, "train", broken=True)
    assert result.returncode == 2 and "set-up failed" in result.stderr and result.stdout == ""
    result, done = run(checkout, "train")
    assert result.stdout == "ran: train\n" and done == ["venv", "install"]


@pytest.mark.parametrize("damage", ["empty", "no python", "dangling", "stale", "moved"])
def test_a_broken_set_up_is_repaired(checkout, damage):
    run(checkout, "train")
    venv = checkout / ".venv"
    if damage == "empty":
        shutil.rmtree(venv)
        venv.mkdir()
    elif damage == "no python":
        (venv / "bin/python").unlink()
    elif damage == "dangling":
        (venv / "bin/python").unlink()
        (venv / "bin/python").symlink_to("/nowhere/python3")
    elif damage == "stale":
        with open(checkout / "setup.cfg", "a", encoding="utf-8") as f:
            f.write("# another requirement\n")
    else:
        checkout = checkout.rename(checkout.parent / "elsewhere")
    result, done = run(checkout, "train")
    assert result.stdout == "ran: train\n" and done[-1] == "install", result.stderr
    assert run(checkout, "train")[1] == []


def test_test_script_adds_its_extra(checkout):
    run(checkout, "train")
    result, done = run(checkout, "-x", script="test")
    assert result.stdout == "tested: -n 2 --dist worksteal -x\n" and done == ["install"]
    assert run(checkout, script="test")[1] == [] and run(checkout, "train")[1] == []


def test_a_checkout_named_minirelu_does_not_hide_the_package(tmp_path):
    """A script beside the checkout gets the installed package, not a namespace package."""
    (tmp_path / "minirelu" / "minirelu").mkdir(parents=True)
    code = "import minirelu as mr; print(mr.__file__, mr.Run)"
    (tmp_path / "script.py").write_text(code, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = {"capture_output": True, "text": True, "env": env}
    installed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path.parent, **options)
    if installed.returncode:
        pytest.skip("minirelu is not installed")
    result = subprocess.run([sys.executable, str(tmp_path / "script.py")], cwd=tmp_path, **options)
    assert result.returncode == 0, result.stderr
    assert result.stdout == installed.stdout


def test_every_folder_of_modules_is_a_package():
    """Else a wheel lacks it."""
    package = Path(mr.__file__).parent
    lacking = {f.parent for f in package.rglob("*.py") if not (f.parent / "__init__.py").exists()}
    assert not lacking


def test_missing_python_is_reported(checkout):
    tools = checkout.parent / "tools"
    tools.mkdir()
    for name in ("dirname", "cat", "cksum"):
        (tools / name).symlink_to(shutil.which(name))
    result = subprocess.run(
        [shutil.which("sh"), str(checkout / "bin" / "minirelu")],
        capture_output=True, text=True, env={"PATH": str(tools)},
    )  # fmt: skip
    assert result.returncode == 2 and "no Python 3.10 or newer found" in result.stderr
