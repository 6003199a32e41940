"""The README's Python runs as it stands, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(finished_run, capsys):
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL).group(1)
    assert '"runs/small"' in code
    exec(code.replace('"runs/small"', repr(str(finished_run.folder))), {})
    per_token, per_batch = capsys.readouterr().out.splitlines()
    assert 0 < float(per_token) < 1
    assert len(per_batch.strip("[]").split()) == finished_run.config.n_layers


def test_links_to_files_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert len(links) > 15
    assert [link for link in links if not (README.parent / link).exists()] == []
