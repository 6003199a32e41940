"""``minirelu compare``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from minirelu.cli.say import say


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(), metavar="RUN RUN...")
@click.option(
    "--out", default="compare", show_default=True, type=click.Path(), help="Folder for figures."
)
@click.option("--json", "json_file", type=click.Path(), help="Also write the numbers to a file.")
def compare(folders: tuple[str, ...], out: str, json_file: str | None) -> None:
    """Compare runs: settings, use of each layer, figures.

    Use is measured at the end of each run. The other runs are compared with the first.

    \b
    Examples:
      minirelu compare runs/small runs/wide
      minirelu compare runs/small runs/small-2 --out seeds --json seeds.json
    """
    from minirelu.figures.runs import open_runs
    from minirelu.report import compare as side_by_side
    from minirelu.runs.files import explained, write_text

    runs = open_runs(folders)
    result = side_by_side.compare(runs)
    for line in side_by_side.heading(result):
        say(line)
    for line in side_by_side.table(result):
        say(line)
    with explained("writing the comparison"):
        Path(out).mkdir(parents=True, exist_ok=True)
        pictures, data, left_out = side_by_side.overlay(runs, Path(out))
        say()
        for sentence in [*result["notes"], *result["left_out"], *left_out]:
            say(f"note    {sentence}")
        for picture in pictures.values():
            say(f"figure  {picture} (and .svg)")
        if json_file:
            result["figures"] = data
            write_text(Path(json_file), json.dumps(result, indent=1, allow_nan=False))
            say(f"data    {json_file}")
