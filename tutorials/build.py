"""Make the notebooks: convert each tutorial, run it, and keep what it printed and drew.

    python tutorials/build.py            all of them
    python tutorials/build.py 01 05      these
    python tutorials/build.py --check    only say which notebooks are out of step (exit code 1)

The .py is the source; nobody edits a notebook. Running them needs the extra ``tutorials``,
``--check`` does not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from minirelu.errors import UserError, one_line
from minirelu.runs.files import read_json, write_text

HERE = Path(__file__).resolve().parent
SECONDS = 180  # a cell that takes longer hangs


def tutorials(wanted: list[str]) -> list[Path]:
    """Sources of the tutorials with these numbers; of all for none."""
    by_number = {path.name[:2]: path for path in sorted(HERE.glob("[0-9][0-9]_*.py"))}
    numbers = [number.zfill(2) for number in wanted or by_number]
    for number in numbers:
        if number not in by_number:
            raise UserError(
                f"there is no tutorial {one_line(number)}; there are {', '.join(by_number)}"
            )
    return [by_number[number] for number in numbers]


def cells(source: str) -> list[tuple[str, str]]:
    r"""Kind and text of each cell of a program in percent format.

    >>> cells("# %% [markdown]\n# # Title\n#\n# Words.\n\n# %%\nx = 1\n")
    [('markdown', '# Title\n\nWords.'), ('code', 'x = 1')]
    """
    result = []
    for part in ("\n" + source).split("\n# %%")[1:]:
        head, _, body = part.partition("\n")
        kind = "markdown" if head.strip() == "[markdown]" else "code"
        if kind == "markdown":
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
        result.append((kind, body.strip("\n")))
    return result


def in_step(source: Path) -> bool:
    """Whether the notebook beside a tutorial has the same cells."""
    notebook = source.with_suffix(".ipynb")
    if not notebook.exists():
        return False
    in_notebook = [(c["cell_type"], "".join(c["source"])) for c in read_json(notebook)["cells"]]
    return in_notebook == cells(source.read_text(encoding="utf-8"))


def execute(source: Path) -> str:
    """Convert a tutorial and run it in a fresh kernel; return the notebook's text."""
    try:
        import jupytext
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
    except ImportError as e:
        raise UserError(f"making notebooks needs {e.name}; pip install -e '.[tutorials]'") from None
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    for cell in notebook.cells:
        cell.source = cell.source.strip("\n")  # the blank lines that stand before a function
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(source.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as e:
        raise UserError(f"{source.name}: {e.ename}: {one_line(e.evalue)}") from None
    steady(notebook)
    return nbformat.writes(notebook) + "\n"


def steady(notebook: dict[str, Any]) -> None:
    """Leave out what differs from run to run and from machine to machine."""
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{i}"
        cell["metadata"] = {}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Make the notebooks of the tutorials.")
    parser.add_argument("number", nargs="*", help="which: 01, say; all without")
    parser.add_argument("--check", action="store_true", help="only say which are out of step")
    options = parser.parse_args(arguments)
    try:
        sources = tutorials(options.number)
        if options.check:
            stale = [source for source in sources if not in_step(source)]
            for source in stale:
                number = source.name[:2]
                print(f"{source.stem}.ipynb is out of step: python tutorials/build.py {number}")
            return 1 if stale else 0
        for source in sources:
            notebook = source.with_suffix(".ipynb")
            write_text(notebook, execute(source))
            print(f"{notebook.name}: {notebook.stat().st_size / 1e3:.0f} kB", flush=True)
    except UserError as e:
        print(f"build: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
