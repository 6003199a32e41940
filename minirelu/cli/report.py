"""``minirelu report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from minirelu.cli.say import say

if TYPE_CHECKING:
    from minirelu.runs.run import Run


@click.command()
@click.argument("folder", type=click.Path())
def report(folder: str) -> None:
    """Draw the figures of a run, and write its page report.html.

    The page also has every hidden unit: how often it fires, since when, on which tokens, in which
    contexts.

    \b
    Example:
      minirelu report runs/small
    """
    from minirelu.runs.run import Run

    page = write_page(Run.open(folder))
    say(f"report   {page} ({page.stat().st_size / 1e6:.1f} MB)")
    say(f"figures  {page.parent / 'figures'} (PNG and SVG)")
    say("next     open the page in a browser")


def write_page(run: Run) -> Path:
    """Write the report, with a bar while the units are watched."""
    from tqdm import tqdm

    from minirelu.report.page import write_report

    # disable=None: no bar where the output is not a terminal
    with tqdm(desc="watching units", unit="sequence", leave=False, disable=None) as bar:

        def on_read(n: int, of: int) -> None:
            bar.total = of
            bar.update(n)

        return write_report(run, on_read)
