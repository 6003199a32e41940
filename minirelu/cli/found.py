"""What commands do with what they found: tables in the terminal, JSON, a figure, part of a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.say import say
from minirelu.errors import UserError, shown

PAGE_HELP = "Also put tables and figure into a page, between its marks: PAGE.md, or PAGE.md#PART."

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minirelu.figures.panels import Data
    from minirelu.runs.run import Run


def results_options(command: Callable) -> Callable:
    """Add ``--json``, ``--figure`` and ``--page``."""
    for option in (
        click.option("--page", type=click.Path(), help=PAGE_HELP),
        click.option(
            "--figure", type=click.Path(), help="Also draw them: a .png, and .svg beside it."
        ),
        click.option(
            "--json", "json_file", type=click.Path(), help="Also write all numbers to a file."
        ),
    ):
        command = option(command)
    return command


def about(
    runs: Sequence[Run], settings: Mapping[str, Any] | None = None, sha256: str = ""
) -> dict[str, Any]:
    """What results carry: settings of the first run, versions, text, facts of each run.

    ``settings`` and ``sha256`` (of the text) are those of a model that is not a run.
    """
    from minirelu.figures.runs import facts
    from minirelu.runs.prepare import made_with

    return {
        "settings": runs[0].settings.tables() if runs else settings,
        "made_with": made_with(),
        "corpus_sha256": runs[0].corpus["sha256"] if runs else sha256,
        "runs": [facts(run) for run in runs],
    }


def open_finished(folders: Sequence[str]) -> list[Run]:
    """Runs, each once; of a sweep the finished ones."""
    from minirelu.figures.runs import open_runs
    from minirelu.sweeps.folder import finished_runs
    from minirelu.sweeps.sweep import Sweep

    runs: dict[Path, Run] = {}
    for folder in map(Path, folders):
        if (folder / "sweep.toml").is_file():
            opened = [run for _, run in finished_runs(folder, Sweep.from_folder(folder))]
            if not opened:
                raise UserError(f"no run of the sweep in {shown(folder)} is finished yet")
        else:
            opened = open_runs([folder])
        for run in opened:
            runs.setdefault(run.folder.resolve(), run)
    return list(runs.values())


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """The first column to the left, the others to the right; an empty line above."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    say()
    for first, *rest in rows:
        cells = [f"{text:>{width}}" for text, width in zip(rest, widths[1:], strict=True)]
        say("  ".join([f"{first:{widths[0]}}", *cells]))


def write_found(
    content: dict[str, Any],
    data: Data | None,
    text: str,
    part: str,
    json_file: str | None,
    figure: str | None,
    page: str | None,
    draw: Callable[[Data], Figure] | None = None,
) -> None:
    """Write results where it was asked.

    Parameters
    ----------
    content : dict
        for ``json_file``.
    data : dict, optional
        of the ``figure``, as ``minirelu.figures.panels`` draws it, or ``draw``.
    text : str
        Markdown, for the ``page``; the figure, if there is one, follows it there.
    part : str
        name of the part of the page, unless the page says which, as in ``page.md#part``.
    draw : callable, optional
        what draws the data, if it is not made of panels.
    """
    from minirelu.figures.pruning import save_drawn
    from minirelu.runs.files import explained, write_text
    from minirelu.runs.markdown import parts_around, replace_part

    if page:
        name, _, given = page.partition("#")
        file, part = Path(name), given or part
        parts_around(file, part)  # raises before anything is written
    if json_file:
        with explained("writing the results"):
            write_text(Path(json_file), json.dumps(content, indent=1, allow_nan=False))
        say(f"numbers   {json_file}")
    if figure and data:
        picture = save_drawn(data, Path(figure).with_suffix(""), draw)
        say(f"figure    {picture}")
    if page:
        if data:
            picture = save_drawn(data, file.with_suffix("") / part, draw)
            picture.with_suffix(".svg").unlink(missing_ok=True)
            text += "\n\n" * bool(text) + f"![{data['title']}]({file.stem}/{picture.name})"
        replace_part(file, part, text)
        say(f"page      {file}, part {part}")
