"""``minirelu effects``."""

from __future__ import annotations

from pathlib import Path

import click

from minirelu.cli.found import about, print_table, results_options, write_found
from minirelu.cli.options import threads_option, use_threads
from minirelu.cli.say import say
from minirelu.errors import UserError, command, shown


@click.command()
@click.argument("folder", type=click.Path(), metavar="SWEEP")
@click.option(
    "--tokens", type=int,
    help="Also count which units are on anywhere in so many tokens of the training text.",
)  # fmt: skip
@results_options
@threads_option
def effects(
    folder: str,
    tokens: int | None,
    json_file: str | None,
    figure: str | None,
    page: str | None,
    threads: int | None,
) -> None:
    """Say what each setting of a sweep does to the use of layers.

    SWEEP is one whose settings have two values each: a grid, or a balanced fraction of one
    (`minirelu sweep --fraction`). The effect of a setting is what its second value adds to that of
    the first, the others alike, estimated together by least squares; the 95 % interval is made
    from what the settings one by one do not explain. Effects marked * have an interval without 0.

    \b
    Examples:
      minirelu sweep screen --seeds 1
      minirelu effects sweeps/screen
      minirelu effects sweeps/screen --tokens 1000000 --figure screen.png
    """
    from tqdm import tqdm

    from minirelu.claims.effects import effects_of, levels_of, responses, table_of
    from minirelu.figures.effects import effects as drawn
    from minirelu.runs.markdown import table
    from minirelu.sweeps.folder import finished_runs
    from minirelu.sweeps.sweep import Sweep

    use_threads(threads)
    if tokens is not None and tokens < 1:
        raise UserError(f"--tokens: {tokens} is not allowed; it must be 1 or more")
    sweep = Sweep.from_folder(folder)
    levels_of(sweep, sweep.points())  # mistakes come before the work
    runs = finished_runs(Path(folder), sweep)
    if not runs:
        raise UserError(f"no run of the sweep in {shown(folder)} is finished yet")
    with tqdm(total=len(runs), unit="run", leave=False, disable=None) as bar:
        found = effects_of(sweep, runs, responses(sweep.vary, tokens), bar.update)
    content = {**about([run for _, run in runs]), **found}
    left = len(sweep.points()) - len(runs)
    say(f"sweep     {folder}: {len(runs)} runs" + (f", {left} not finished" if left else ""))
    kind = "balanced" if found["balanced"] else "not balanced, so that intervals differ"
    say(f"design    {found['combinations']} combinations of {len(sweep.vary)} settings, {kind}")
    say("          shares of hidden units in percentage points; loss in nats")
    rows = table_of(content)
    print_table(rows)
    say("\n* the 95 % interval leaves out 0")
    write_found(
        content, drawn(content), table(rows[0], rows[1:]), "effects", json_file, figure, page
    )
    say(f"next      {command('claims', folder)}")
