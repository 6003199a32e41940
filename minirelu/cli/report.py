"""``minirelu report``."""

from __future__ import annotations

import click


@click.command()
@click.argument("folder", type=click.Path())
def report(folder: str) -> None:
    r"""Draw the figures of a run, and write its page report.html.

    \b
    Example:
      minirelu report runs/small
    """
    from minirelu.report.page import write_report
    from minirelu.training.run import Run

    page = write_report(Run.open(folder))
    click.echo(f"report   {page}")
    click.echo(f"figures  {page.parent / 'figures'} (PNG and SVG)")
    click.echo("next     open the page in a browser")
