"""``minirelu capacity``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minirelu.cli.found import about, print_table, results_options, write_found
from minirelu.cli.options import threads_option, use_threads
from minirelu.cli.say import say
from minirelu.errors import UserError, command, program


@click.command()
@click.argument("folder", type=click.Path(), metavar="RUN")
@click.option(
    "--within", default=1.0, show_default=True, metavar="PERCENT",
    help="Rise in held-out loss that the advice allows.",
)  # fmt: skip
@click.option("--by", default="first_order", show_default=True, help="Which units count as needed.")
@click.option(
    "--tokens", default=16384, show_default=True,
    help="Of the text to rank units on, and of the held-out text to measure on.",
)  # fmt: skip
@click.option("--out", type=click.Path(), help="Settings of the next run (TOML).  "
              "[default: capacity.toml in RUN]")  # fmt: skip
@click.option(
    "--trial", type=click.Path(), metavar="FOLDER",
    help="Put the advice to the test: train with it, and with one width for all layers, here.",
)  # fmt: skip
@click.option("--seeds", default=3, show_default=True, help="Of the trial, after the run's own.")
@click.option(
    "--workers", default=1, show_default=True, help="Runs of a trial that are trained at a time."
)
@results_options
@threads_option
def capacity(
    folder: str,
    within: float,
    by: str,
    tokens: int,
    out: str | None,
    trial: str | None,
    seeds: int,
    workers: int,
    json_file: str | None,
    figure: str | None,
    page: str | None,
    threads: int | None,
) -> None:
    """Say how many hidden units each layer needs, and advise.

    Needed: the fewest units of a layer, the others left alone, with which the held-out loss stays
    within 0, 0.1 and 1 percent. Advised: what each layer keeps when units are removed from all
    layers together until the loss has risen by --within, in multiples of 8. The settings of a run
    with these widths are written as TOML.

    With --trial the advice is tested: new trainings with the widths advised, with those of the
    run, and with one width for all layers that has as many parameters, or takes as long a step.

    \b
    Examples:
      minirelu capacity runs/small
      minirelu train --config runs/small/capacity.toml --out runs/next
      minirelu capacity runs/small --trial sweeps/capacity --seeds 5
    """
    from minirelu.figures import pruning as figures
    from minirelu.pruning import tables
    from minirelu.pruning.capacity import capacity_of
    from minirelu.runs.files import explained, write_text
    from minirelu.runs.markdown import table
    from minirelu.runs.run import Run

    use_threads(threads)
    if tokens < 1:
        raise UserError(f"--tokens: {tokens} is not allowed; it must be 1 or more")
    if not 0 <= within < 1e6:
        raise UserError(f"--within: {within:g} is not allowed; it must be 0 or more, in percent")
    run = Run.open(folder)
    if trial is not None:
        content = _trial(run, trial, within / 100, by, tokens, seeds, workers)
        rows = tables.of_trial(content)
        say(f"\n{content['title']}; {seeds} seeds, 95 % intervals")
        print_table(rows)
        say()
        write_found(
            content, figures.trial(content), table(rows[0], rows[1:]),
            "capacity-trial", json_file, figure, page,
        )  # fmt: skip
        return
    with _bar(run.config.n_layers) as bar:
        found = capacity_of(run, within / 100, by, tokens, bar.update)
    content = {**about([run]), **found}
    say(f"model     {run.name}, step {found['step']}; units that count least by {by} go first")
    say(f"text      ranked on {tokens:,} tokens, measured on {found['tokens']:,} others")
    say(f"loss      {found['loss']:.4f} nats; as advised, before any training "
        f"{found['advised_loss']:.4f}")  # fmt: skip
    rows, saved = tables.of_capacity(content), tables.of_savings(content)
    print_table(rows)
    print_table(saved)
    target = Path(out) if out else run.folder / "capacity.toml"
    with explained("writing the settings"):
        write_text(target, found["toml"])
    say(f"\nadvice    {target}")
    text = f"{table(rows[0], rows[1:])}\n\n{table(saved[0], saved[1:])}"
    write_found(
        content, figures.capacity(content), text, "capacity",
        json_file, figure, page,
    )  # fmt: skip
    say(f"next      {program()} train --config {target}")
    say(f"          {command('capacity --trial sweeps/capacity', folder)}")


def _bar(n_layers: int) -> Any:
    """A bar for the models that are measured: those that each layer takes."""
    from tqdm import tqdm

    from minirelu.pruning.capacity import LIMITS
    from minirelu.pruning.needs import LOOKS

    total = LOOKS * n_layers * len(LIMITS)
    return tqdm(total=total, unit="model", leave=False, disable=None)


def _trial(
    run: Any, folder: str, within: float, by: str, tokens: int, seeds: int, workers: int
) -> dict[str, Any]:
    """Train with the widths advised and with others, and measure what they came to."""
    from minirelu.cli.prune import train_watched
    from minirelu.pruning.capacity import capacity_arms, shapes_to_try
    from minirelu.pruning.trial import begin, results, weights_of

    if seeds < 1:
        raise UserError(f"--seeds: {seeds} is not allowed; it must be 1 or more")
    place = Path(folder)
    asked = {"run": weights_of(run), "within": within, "by": by, "tokens": tokens, "seeds": seeds}
    begin(place, asked)
    shapes = shapes_to_try(run, within, by, tokens, place / "widths.json")
    arms = capacity_arms(run, shapes, seeds)
    say(f"trial     {folder}; arms {', '.join(arms)}; {seeds} seeds")
    for name, widths in shapes.items():
        say(f"          {name}: {', '.join(f'{w:,}' for w in widths)}")
    train_watched(arms, place, workers)
    return {
        "title": "Widths as advised, or one width for all layers",
        **about([run]), **asked, "arms": results(arms, place, tokens, "advised"),
    }  # fmt: skip
