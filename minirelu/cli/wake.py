"""``minirelu wake``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.found import print_table
from minirelu.cli.options import threads_option, use_threads
from minirelu.cli.say import say
from minirelu.errors import UserError, command

if TYPE_CHECKING:
    from minirelu.death.wake import Tally


@click.command()
@click.argument("folder", type=click.Path(), metavar="RUN")
@click.option("--step", type=int, help="Weights of an earlier step.  [default: the last]")
@click.option("--layer", type=int, help="Units of one layer only.  [default: every layer]")
@click.option(
    "--units", default=64, show_default=True, help="Silent units of each layer, drawn at random."
)
@click.option("--budget", default=2048, show_default=True, help="Texts tried for each unit.")
@click.option("--length", default=16, show_default=True, help="Tokens of a text, at most.")
@click.option("--tokens", type=int, help="Read at most this much held-out text.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="Of the draw, and of random starts.")
@click.option("--json", "json_file", type=click.Path(), help="Also write the results here.")
@threads_option
def wake(
    folder: str,
    step: int | None,
    layer: int | None,
    units: int,
    budget: int,
    length: int,
    tokens: int | None,
    seed: int,
    json_file: str | None,
    threads: int | None,
) -> None:
    """Search for texts that make the silent units of a run fire.

    A unit that is silent on all of the held-out text is dead, or was not asked. The search begins
    where the unit comes closest on the probe, and swaps tokens, led by the gradient. A unit that
    is woken is not dead. One that is not may be: how much that says, the controls show, above
    all the units that are silent on the probe but not on the held-out text.

    Everything is written to RUN/death/wake.json, each unit's text too.

    \b
    Examples:
      minirelu wake runs/small
      minirelu wake runs/small --layer 2 --units 200 --budget 8192
    """
    from tqdm import tqdm

    from minirelu.death import wake as waking
    from minirelu.death.search import Budget
    from minirelu.runs.files import explained, write_text
    from minirelu.runs.run import Run

    for name, value, least in (("units", units, 1), ("tokens", tokens, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UserError(f"--{name}: {value} is not allowed; it must be {least} or more")
    spend = Budget(texts=budget, length=length)
    use_threads(threads)
    run = Run.open(folder)
    with tqdm(desc="reading", unit="token", unit_scale=True, leave=False, disable=None) as bar:
        found = waking.silence(run, step, tokens, bar.update)
    plans = waking.plan(run, found, units, seed, layer)
    at = found.step * run.settings.train.batch_size * run.config.n_ctx
    say(f"model     {run.name}, step {found.step}, after {at:,} training tokens")
    text = f"{found.n_tokens:,} tokens, {found.n_sequences:,} sequences"
    say(f"text      held out by the run: {text}; and its probe")
    say(f"search    at most {spend.texts:,} texts of up to {spend.length} tokens for each unit")
    total = spend.texts * sum(len(u) for plan in plans for u in plan.groups.values())
    with tqdm(total=total, desc="searching", unit="text", leave=False, disable=None) as bar:
        content = waking.wake(run, found, plans, spend, seed, bar.update)
    _print(content)
    with explained("writing the results"):
        own = run.folder / "death" / "wake.json"
        own.parent.mkdir(exist_ok=True)
        for file in (own, Path(json_file)) if json_file else (own,):
            write_text(file, json.dumps(content, indent=1, allow_nan=False))
            say(f"written   {file}")
    say(f"next      {command('figure wake', folder)}")


_COLUMNS = ["tried", "woken", "95 % interval", "effort", "shortest", "median"]


def _print(content: dict[str, Any]) -> None:
    from minirelu.death.wake import GROUPS, by_age, tally

    layers = content["layers"]
    rows = [["layer", "silent", "on at random", *_COLUMNS]]
    for layer in layers:
        at_random = f"{100 * layer['on_at_random'] / layer['silent']:.0f} %"
        counted = tally(layer["units"]["silent"])
        rows.append([str(layer["layer"]), f"{layer['silent']:,}", at_random, *_cells(counted)])
    every = [unit for layer in layers for unit in layer["units"]["silent"]]
    if len(layers) > 1:
        silent = sum(layer["silent"] for layer in layers)
        at_random = f"{100 * sum(layer['on_at_random'] for layer in layers) / silent:.0f} %"
        rows.append(["together", f"{silent:,}", at_random, *_cells(tally(every))])
    say(
        "\nUnits silent on all of that, by layer. On at random: of all of them, on one or more of "
        f"{content['budget']['texts']:,}\ntexts of random tokens. Tried: those searched for. "
        "Effort: median of the texts that it took to wake\none. Texts are in tokens, shortened "
        "while the unit fires."
    )
    print_table(rows)

    rows = [["silent since step", *_COLUMNS]]
    for first, last, counted in by_age(every):
        rows.append([f"{first} to {last}" if first < last else f"{first}", *_cells(counted)])
    say("\nThe same units, by the step of the probe since which they have been silent.")
    print_table(rows)

    rows = [["control", *_COLUMNS]]
    for group in ("seldom", "reachable", "unreachable"):
        units = [unit for layer in layers for unit in layer["units"][group]]
        rows.append([GROUPS[group], *_cells(tally(units))])
    say(
        "\nControls: units silent on the probe, but not on the held-out text; and untrained units "
        "with their\nbias lowered, until the probe just fails to reach them, or until no input "
        "can."
    )
    print_table(rows)

    certified = sum(layer["certified_silent"] for layer in layers)
    ratios = [layer["nearest_ratio"] for layer in layers if layer["nearest_ratio"] is not None]
    of = sum(layer["d_mlp"] for layer in layers)
    say(f"\ncertified {certified:,} of {of:,} units are silent on whatever input", nl=not ratios)
    if ratios:
        say(f"; nearest to it: offset / reach {min(ratios):.2f}, where -1 is needed")
    for layer in layers:
        if woken := [unit for unit in layer["units"]["silent"] if unit["woken"]]:
            first = min(woken, key=lambda unit: len(unit["text"]))
            where = f"layer {layer['layer']} unit {first['unit']}"
            say(f"fires on  {where}: {first['as_text']!r}")


def _cells(counted: Tally) -> list[str]:
    """One for each of the columns; a dash where there is nothing to say."""
    if not counted.tried:
        return ["0", *["-"] * 5]
    cells = [f"{counted.tried:,}", f"{100 * counted.share:.0f} %"]
    cells.append(f"{100 * counted.low:.0f} to {100 * counted.high:.0f} %")
    if not counted.woken:
        return [*cells, *["-"] * 3]
    return [*cells, f"{counted.effort:g}", str(counted.shortest), f"{counted.median:g}"]
