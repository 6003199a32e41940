"""``minirelu specificity``."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.found import PAGE_HELP, open_finished, print_table, write_found
from minirelu.cli.options import threads_option, use_threads
from minirelu.cli.say import say
from minirelu.errors import UserError, command

if TYPE_CHECKING:
    from minirelu.figures.runs import Group
    from minirelu.intervals import Estimate
    from minirelu.runs.run import Run

Results = dict[str, Any]  # of a run, as minirelu.specificity.measure returns them


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(), metavar="RUN...")
@click.option(
    "--tokens", default=65_536, show_default=True, help="Read at most this much held-out text."
)
@click.option("--step", type=int, help="Weights of an earlier step.  [default: the last]")
@click.option("--over-training", is_flag=True, help="All steps with weights, for the figure.")
@click.option("--json", "json_file", type=click.Path(), help="Also write every number to a file.")
@click.option("--csv", "csv_file", type=click.Path(), help="Also write a table, a row per layer.")
@click.option("--page", type=click.Path(), help=PAGE_HELP)
@threads_option
def specificity(
    folders: tuple[str, ...],
    tokens: int,
    step: int | None,
    over_training: bool,
    json_file: str | None,
    csv_file: str | None,
    page: str | None,
    threads: int | None,
) -> None:
    """Say what hidden units respond to, and what they write.

    A sweep's folder stands for its finished runs. Runs that differ in the seed only are shown
    together, with half of the 95 % interval over seeds. Numbers are also written to each run's
    specificity.json, from which `minirelu figure specificity` draws.

    \b
    Examples:
      minirelu specificity runs/small
      minirelu specificity sweeps/seeds --over-training --json seeds.json
    """
    from tqdm import tqdm

    from minirelu.figures import KINDS
    from minirelu.figures.runs import groups
    from minirelu.runs.files import explained, write_text
    from minirelu.specificity import tables
    from minirelu.specificity.measure import measure, store

    if tokens < 1:
        raise UserError(f"--tokens: {tokens} is not allowed; it must be 1 or more")
    if over_training and step is not None:
        raise UserError("--over-training measures all steps, --step a single one; give one of them")
    use_threads(threads)
    runs = _open(folders)
    work = [(run, at) for run in runs for at in (run.steps if over_training else [_at(run, step)])]
    sequences = {run.folder: len(run.held_out(tokens)) for run in runs}  # mistakes come first
    read = f"{len(work)} readings" if len(work) > 1 else "one reading"
    say(f"text      held out by each run: at most {tokens:,} tokens; {read} of it")
    measured: dict[Path, list[Results]] = {run.folder: [] for run in runs}
    total = sum(sequences[run.folder] for run, _ in work)
    with tqdm(total=total, desc="reading", unit="sequence", leave=False, disable=None) as bar:
        for run, at in work:

            def on_read(n: int, of: int, run: Run = run) -> None:
                bar.update(n * sequences[run.folder] / of)  # several readings count as one

            measured[run.folder].append(measure(run, tokens, at, on_read))
            with explained("writing the results"):
                store(run, measured[run.folder])
    together = groups(runs)
    content = _content(together, measured)
    for group, numbers in zip(together, content["groups"], strict=True):
        _print(group, numbers, len(together) > 1)
    if len(together) > 1:
        _paragraph(tables.LADDER)
        print_table(tables.of_ladder(content["groups"]))
        say()
    with explained("writing the results"):
        if json_file:
            write_text(Path(json_file), json.dumps(content, indent=1, allow_nan=False))
            say(f"numbers   {json_file}")
        if csv_file:
            write_text(Path(csv_file), as_csv(content))
            say(f"table     {csv_file}")
    if page:
        kind = KINDS["ladder" if len(together) > 1 else "specificity"]
        drawn = kind.data(runs)
        write_found(content, drawn, _markdown(content), "specificity", None, None, page)
    say(f"next      {command('figure specificity', folders[0])}")


def _at(run: Run, step: int | None) -> int:
    """The step to measure; one that the run lacks is refused before anything is computed."""
    steps = run.steps
    if not steps or (step is not None and step not in steps):
        run.params(step)  # raises, naming those there are
    return steps[-1] if step is None else step


def _open(folders: tuple[str, ...]) -> list[Run]:
    """Runs with weights, each once; of a sweep the finished ones."""
    runs = open_finished(folders)
    for run in runs:
        _at(run, None)
    return runs


def _content(together: list[Group], measured: dict[Path, list[Results]]) -> dict[str, Any]:
    """Everything that was measured, and what is needed to judge it or do it again."""
    from minirelu.specificity.layers import NUMBERS, last_minus_first, of_seeds
    from minirelu.specificity.measure import corpus_of

    content = []
    for group in together:
        if len({run.corpus["sha256"] for run in group.runs}) > 1:
            names = ", ".join(run.name for run in group.runs)
            raise UserError(f"runs of the same settings that read different texts: {names}")
        last = [measured[run.folder][-1] for run in group.runs]
        seeds = [result["layers"] for result in last]
        ends = {name: last_minus_first(seeds, name) for name in NUMBERS}
        content.append({
            "name": group.name,
            "settings": group.runs[0].settings.tables(),
            "on_means": group.runs[0].config.activation.on_means,
            "corpus": corpus_of(group.runs[0]),
            "runs": [
                {
                    "run": run.name,
                    "seed": run.settings.train.seed,
                    "trained_with": run.made_with,
                    "results": measured[run.folder],
                }
                for run in group.runs
            ],
            "loss": _plain(_over_seeds([result["loss"] for result in last])),
            "layers": {name: [*map(_plain, of_seeds(seeds, name))] for name in NUMBERS},
            "last_minus_first": {name: e and _plain(e) for name, e in ends.items()},
        })  # fmt: skip
    return {"groups": content}


def _over_seeds(values: list[float]) -> Estimate:
    from minirelu.intervals import over_seeds

    return over_seeds(values)


def _plain(estimate: Estimate) -> dict[str, float | None]:
    """For JSON: NaN, and the limits that a single seed lacks, as None."""
    values = zip(("mean", "low", "high"), estimate, strict=True)
    return {key: x if math.isfinite(x) else None for key, x in values}


def _print(group: Group, numbers: dict[str, Any], several: bool) -> None:
    from minirelu.sparsity.measures import what_on_means
    from minirelu.specificity import tables
    from minirelu.specificity.layers import KIND, TELLS, USES
    from minirelu.specificity.variables import VARIABLES

    config, last = group.runs[0].config, numbers["runs"][0]["results"][-1]
    tokens, sequences = last["tokens"], last["sequences"]
    if several:
        say(f"\n== {group.name}")
    names = ", ".join(run.name for run in group.runs)
    after = f"step {last['step']}, after {last['training_tokens']:,} training tokens"
    say(f"model     {names}, {after}")
    loss = tables.cell(numbers["loss"], lambda x: f"{x:.3f}")
    say(f"loss      {loss} nats per token, on {tokens:,} tokens, {sequences:,} sequences")

    over = f"Means over {len(group.runs)} seeds, ± half of their 95 % interval. "
    _paragraph(
        f"{over * (len(group.runs) > 1)}Kinds of units, in % of the layer. Silent: never on in "
        f"these {tokens:,} tokens; steady: on at more than 95 %. Detect token (2-gram, 3-gram): 1 "
        "to 5 of them explain 95 % of the firings, and it fires at 95 % of the occurrences of "
        "each. Few tokens: 5 or fewer explain 95 %, whatever it misses. Positional: more than "
        "0.05 nats of information with the position."
    )
    print_table(tables.of_layers(numbers, KIND))
    if sentence := what_on_means(config):
        _paragraph(sentence)
    nulls = []
    for name in VARIABLES:
        known = [e["mean"] for e in numbers["layers"][f"null_{name}"] if e["mean"] is not None]
        nulls.append(f"{max(known):.3f}" if known else "-")
    _paragraph(
        "Information of firing with the token read, the ones before and after, and the position: "
        "median over units that are on, in nats, and the share of them above the null, in %. The "
        f"null's medians, of the layer with the largest: {', '.join(nulls)}. Told by token: the "
        "first, in % of all there is to tell about a unit that fires as often (the entropy of its "
        "firing); median."
    )
    print_table(tables.of_layers(numbers, TELLS))
    text = last["text"]
    _paragraph(
        "Effective tokens: how many a unit fires on, were all alike; median. The text itself has "
        f"{text['effective_tokens']:,.0f}, of {text['distinct_tokens']:,} that occur. Token/seq., "
        "seq./batch: units on at a token over those on in a sequence, and these over those on in a "
        f"batch of {last['batch_tokens']:,} tokens; used in a batch: in % of the layer. Detectors: "
        "of tokens; write back, remove: those whose own token is among the 1 % of the vocabulary "
        "that they raise, or lower, most (by chance 1 % each)."
    )
    print_table(tables.of_layers(numbers, USES))
    if config.n_layers == 1:
        _paragraph("One layer: there is no first and last one to compare.")
    else:
        _paragraph("First against last layer: the last one's number less the first one's.")
        print_table(tables.of_ends(numbers))
        say()
    if len(numbers["runs"][0]["results"]) > 1:
        _paragraph("Over training:")
        print_table(tables.of_steps(numbers))
        say()
    for l, examples in enumerate(last["detectors"]):
        for example in examples[:1]:
            on = " or ".join(repr(t) for t in example["triggers"])
            raises, lowers = ("  ".join(map(repr, example[k])) for k in ("raises", "lowers"))
            say(f"detects   layer {l} unit {example['unit']}: {on}, {example['firings']} firings")
            say(f"          raises {raises}; lowers {lowers}")


def _markdown(content: dict[str, Any]) -> str:
    """The tables for a page: of one group all, of several those side by side."""
    from minirelu.runs.markdown import table
    from minirelu.specificity import tables
    from minirelu.specificity.layers import KIND, TELLS, USES

    if len(content["groups"]) > 1:
        head, *body = tables.of_ladder(content["groups"])
        return f"{tables.LADDER}\n\n{table(head, body)}"
    (numbers,) = content["groups"]
    n, tokens = len(numbers["runs"]), numbers["runs"][0]["results"][-1]["tokens"]
    if len(numbers["runs"][0]["results"]) > 1:
        head, *body = tables.of_steps(numbers)
        over = f"Means over {n} seeds, on" if n > 1 else "On"
        return f"{over} {tokens:,} held-out tokens.\n\n{table(head, body)}"
    tells = "Information with firing, in nats, and the share of units above the null, in %"
    parts_of = {
        "Kinds of units, in % of the layer": tables.of_layers(numbers, KIND),
        tells: tables.of_layers(numbers, TELLS),
        "Use": tables.of_layers(numbers, USES),
        "Last layer against first": tables.of_ends(numbers),
    }
    over = f"Means over {n} seeds, ± half of their 95 % interval; on" if n > 1 else "On"
    parts = [f"{over} {tokens:,} held-out tokens."]
    parts += [f"{title}:\n\n{table(rows[0], rows[1:])}" for title, rows in parts_of.items()]
    return "\n\n".join(parts)


def _paragraph(text: str) -> None:
    say("\n" + textwrap.fill(text, 96))


def as_csv(content: dict[str, Any]) -> str:
    """A row for each run, step and layer: where it was measured, and every number."""
    from minirelu.specificity.layers import NUMBERS

    facts = ("step", "training_tokens", "tokens", "batch_tokens", "loss")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["group", "run", "seed", *facts, "on_means", "corpus_sha256", "layer", *NUMBERS]
    )
    for group in content["groups"]:
        for run in group["runs"]:
            for result in run["results"]:
                where = [group["name"], run["run"], run["seed"], *(result[f] for f in facts)]
                where += [group["on_means"], group["corpus"]["sha256"]]
                for l, layer in enumerate(result["layers"]):
                    writer.writerow([*where, l, *(layer[name] for name in NUMBERS)])
    return text.getvalue()
