"""``minirelu unused``."""

from __future__ import annotations

import textwrap

import click

from minirelu.cli.found import about, open_finished, print_table, results_options, write_found
from minirelu.cli.options import threads_option, use_threads
from minirelu.cli.say import say
from minirelu.errors import UserError, command


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(), metavar="RUN...")
@click.option(
    "--tokens", default=1_000_000, show_default=True, help="Of the training text, at most."
)
@click.option("--step", type=int, help="Weights of an earlier step.  [default: the last]")
@results_options
@threads_option
def unused(
    folders: tuple[str, ...],
    tokens: int,
    step: int | None,
    json_file: str | None,
    figure: str | None,
    page: str | None,
    threads: int | None,
) -> None:
    """Tell whether the units that a batch leaves unused are silent.

    Follows the units that no token of the probe turns on to a long text, and to a text of random
    tokens, in which every token is as frequent as any other. Several runs are seeds of the same
    settings, and are shown as means with half of their 95 % interval.

    \b
    Examples:
      minirelu unused runs/small
      minirelu unused sweeps/seeds --tokens 1000000 --figure unused.png
    """
    from tqdm import tqdm

    from minirelu.claims.answers import refuse_same_seeds
    from minirelu.claims.unused import table_of
    from minirelu.claims.unused import unused as follow
    from minirelu.figures.runs import groups
    from minirelu.figures.unused import unused as drawn
    from minirelu.runs.markdown import table

    use_threads(threads)
    runs = open_finished(folders)
    if len(groups(runs)) > 1:
        raise UserError("these runs differ in more than the seed; give those of one setting")
    refuse_same_seeds(runs)
    with tqdm(unit="token", unit_scale=True, leave=False, disable=None) as bar:
        results = [follow(run, tokens, step, bar.update) for run in runs]
    content = {**about(runs), "results": results}
    first = results[0]
    say(f"model     {', '.join(run.name for run in runs)}, step {first['step']}")
    say(
        f"text      a batch of {first['batch']['tokens']:,} held-out tokens, "
        f"{first['batch']['different']:,} of them different; {first['read']:,} tokens of the "
        "training text"
    )
    say("in % of the layer's units")
    rows = table_of(results)
    print_table(rows)
    say()
    say(textwrap.fill(
        "Units specific to tokens turn up in more text, and where every token is frequent; silent "
        "ones do not.", 96
    ))  # fmt: skip
    text = table(rows[0], rows[1:])
    write_found(content, drawn(content), text, "unused", json_file, figure, page)
    say(f"next      {command('wake', runs[0].folder)}")
