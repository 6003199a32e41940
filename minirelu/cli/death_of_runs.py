"""``minirelu death history`` and ``overlap``: of single runs, beside the experiments on studies."""

from __future__ import annotations

import json
from pathlib import Path

import click

from minirelu.cli.say import say
from minirelu.errors import UserError, command


@click.command()
@click.argument("run", type=click.Path())
@click.option(
    "--successive", type=int, default=3, show_default=True,
    help="Silent records in a row that make a death.",
)  # fmt: skip
def history(run: str, successive: int) -> None:
    """Tell who fell silent, died and came back in one run, layer by layer.

    RUN was trained with --history-every, as the runs of a study are. A unit dies when it is silent
    at several records in a row, and on a larger text that shares nothing with the probe.

    \b
    Examples:
      minirelu train --history-every 10
      minirelu death history runs/small
    """
    from minirelu.death.history import History
    from minirelu.death.summary import in_words, summary
    from minirelu.runs.files import explained, write_text
    from minirelu.runs.run import Run

    found = History.of(Run.open(run))
    numbers = summary(found, successive)
    rarer = 100 * numbers["silent_means_less_than"]
    say(
        f"{'records':9} {numbers['records']}, every {numbers['every']} steps, the last at step "
        f"{numbers['step']}\n"
        f"{'texts':9} probe {numbers['probe_tokens']:,} tokens, confirming text "
        f"{numbers['confirming_tokens']:,}\n"
        f"{'silent':9} on both: on in fewer than {rarer:.1f} % of sequences "
        f"(95 % confidence, {numbers['sequences']} sequences)\n"
        f"{'death':9} silent at {successive} records in a row, and on the confirming text\n"
    )
    rows = [in_words(row) for row in numbers["layers"]]
    for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
        say("  ".join(f"{cell:>11}" for cell in cells))
    say(
        "\nfalse: of the silences on the probe, those that the confirming text refutes\n"
        "vs flicker: returns over those that rare firing would show\n"
        "shape: of a Weibull fit, below 1 where the hazard of dying falls with time"
    )
    say(
        f"\nWhat other definitions take for dead, at step {found.slow_steps[-1]}; in brackets, how "
        "far they agree\nwith the first: units that both name, over those that one does\n"
    )
    names = list(numbers["layers"][0]["definitions"])
    say("  ".join(f"{cell:>24}" for cell in ("layer", *names))[18:])
    for row in numbers["layers"]:
        agree = ["-" if x is None else f"{x:.2f}" for x in row["agreement"][0]]
        shares = [f"{100 * x:.1f} %" for x in row["definitions"].values()]
        cells = [f"{share} ({a})" for share, a in zip(shares, agree, strict=True)]
        say("  ".join(f"{cell:>24}" for cell in (row["layer"], *cells))[18:])
    file = Path(run) / "death" / "history.json"
    with explained("writing the results"):
        file.parent.mkdir(exist_ok=True)
        write_text(file, json.dumps(numbers, indent=1))
    say(f"{'written':9} {file}\n{'next':9} {command('figure survival', run)}")


@click.command()
@click.argument("runs", nargs=2, type=click.Path(), metavar="RUN TWIN")
def overlap(runs: tuple[str, str]) -> None:
    """Compare who is silent in two runs of your own, twins: same initial weights, other batches.

    \b
    Example:
      minirelu train --history-every 10 --data-seed 1 --out runs/a
      minirelu train --history-every 10 --data-seed 2 --out runs/b
      minirelu death overlap runs/a runs/b
    """
    from minirelu.death.experiments.twins import overlaps, refuse_strangers
    from minirelu.death.history import History
    from minirelu.runs.run import Run

    a, b = (History.of(Run.open(folder)) for folder in runs)
    refuse_strangers(a.run, b.run)
    rows = overlaps(a, b)
    if not rows:
        raise UserError("nobody is silent in both runs at any record: there is nothing to compare")
    say("who is silent in both, against random sets of the same sizes (hypergeometric)\n")
    columns = (
        "step",
        "layer",
        "in the first",
        "in the second",
        "in both",
        "by chance",
        "ratio",
        "z",
    )
    say("  ".join(f"{name:>13}" for name in columns))
    for step, l, o in rows:
        cells = (step, l, o.a, o.b, o.both, f"{o.expected:.1f}", f"{o.ratio:.2f}", f"{o.z:.1f}")
        say("  ".join(f"{cell:>13}" for cell in cells))
