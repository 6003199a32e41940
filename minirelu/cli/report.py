"""``minirelu report``."""

from __future__ import annotations

import click

from minirelu.cli.say import say


@click.command()
@click.argument("folder", type=click.Path())
def report(folder: str) -> None:
    """Draw the figures of a run, and write its page report.html.

    \b
    Example:
      minirelu report runs/small
    """
    from minirelu.report.page import write_report
    from minirelu.training.run import Run

    page = write_report(Run.open(folder))
    say(f"report   {page}")
    say(f"figures  {page.parent / 'figures'} (PNG and SVG)")
    say("next     open the page in a browser")
