"""What --help says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner
from helpers import command

from minirelu.cli.main import cli
from minirelu.errors import UserError


def test_help_has_an_example_for_every_command():
    assert command().returncode == 0
    for name in ("train", "report", "sample", "export", "wake"):
        result = command(name, "--help")
        lines = result.stdout.split("Example")[1].splitlines()
        assert result.returncode == 0 and lines[1].strip().startswith(f"minirelu {name}")
        assert r"\b" not in result.stdout
    assert "--d-mlp" in command("train", "--help").stdout


@pytest.mark.parametrize(
    "arguments, shown",
    [
        ([], "Optimizer steps. (small: 1400)"),
        (["--preset", "tiny"], "Optimizer steps. (tiny: 400)"),
        (["--preset=paper", "--d-mlp", "wrong"], "Optimizer steps. (paper: 700)"),
        (["--config", "my.toml"], "Optimizer steps. (my.toml: 77)"),
        (["--preset", "wide", "--config", "my.toml"], "one per layer. (my.toml: 8192)"),
    ],
)
@pytest.mark.parametrize("name", ["train", "estimate", "sweep"])
def test_help_shows_the_settings_of_the_preset_or_file(
    tmp_path, monkeypatch, name, arguments, shown
):
    (tmp_path / "my.toml").write_text('preset = "tiny"\n[train]\nsteps = 77\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for given in ([*arguments, "--help"], ["-h", *arguments]):
        result = CliRunner().invoke(cli, [name, *given])
        assert result.exit_code == 0 and shown in " ".join(result.output.split())


def test_help_of_an_unknown_preset_names_those_there_are():
    result = CliRunner().invoke(cli, ["train", "--help", "--preset", "tyni"])
    assert isinstance(result.exception, UserError)
    assert "unknown preset 'tyni'; there are tiny, small" in str(result.exception)


def test_command_descriptions_are_not_cut():
    help = CliRunner().invoke(cli, ["--help"], terminal_width=78).output
    for line in help.split("Commands:")[1].strip().splitlines():
        name, description = line.split(maxsplit=1)
        assert name in cli.commands and description.endswith(".") and "..." not in description


def test_import_and_help_load_nothing_heavy():
    code = (
        "import sys; from minirelu.cli.main import cli; "
        "cli.main(['train', '--help'], standalone_mode=False); "
        "print([m for m in ('numba', 'matplotlib', 'tokenizers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
