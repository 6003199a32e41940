"""``minirelu sparsity``."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.options import SCHEDULER_HELP, threads_option, use_threads
from minirelu.cli.say import say
from minirelu.config import COMPUTE
from minirelu.errors import UserError, command, printable

if TYPE_CHECKING:
    import numpy as np

    from minirelu.config import ModelConfig
    from minirelu.interop.model import Model
    from minirelu.model.parameters import Parameters
    from minirelu.sparsity.counts import UnitCounts


@click.command()
@click.argument("model", type=click.Path())
@click.option("--corpus", help="stdlib, a UTF-8 file or a folder.  [default: held out by the run]")
@click.option("--tokens", type=int, help="Read at most this many tokens.  [default: all]")
@click.option("--step", type=int, help="Weights of an earlier step of a run.  [default: the last]")
@click.option("--json", "json_file", type=click.Path(), help="Also write every measure to a file.")
@click.option("--csv", "csv_file", type=click.Path(), help="Also write a table, a row per layer.")
@click.option("--counts", "counts_file", type=click.Path(), help="Also write the counts (.npz).")
@click.option(
    "--workers", type=int, default=1, show_default=True, help="Processes that share the text."
)
@click.option("--scheduler", metavar="ADDRESS", help=SCHEDULER_HELP)
@click.option(
    "--compute",
    metavar=f"[{'|'.join(COMPUTE)}]",
    help="Who computes.  [default: as the run was trained; auto]",
)
@threads_option
def sparsity(
    model: str,
    corpus: str | None,
    tokens: int | None,
    step: int | None,
    json_file: str | None,
    csv_file: str | None,
    counts_file: str | None,
    workers: int,
    scheduler: str | None,
    compute: str | None,
    threads: int | None,
) -> None:
    """Measure which hidden units of a model fire on a text.

    MODEL is a run, or the folder of an OPT model (`OPTForCausalLM`, safetensors, with its
    tokenizer.json). Without --corpus a run is measured on the text it has held out. A text may
    be of any length.

    \b
    Examples:
      minirelu sparsity runs/small
      minirelu sparsity runs/small --corpus my.txt --json my.json
      minirelu sparsity opt-125m --corpus stdlib --tokens 1000000
    """
    from minirelu.interop.model import open_model
    from minirelu.runs.files import explained, write_text
    from minirelu.runs.formats import write_counts

    use_threads(threads)
    if tokens is not None and tokens < 1:
        raise UserError(f"--tokens: {tokens} is not allowed; it must be 1 or more")
    if workers != 1 and scheduler is not None:
        raise UserError("--workers are processes here, --scheduler has workers elsewhere; give one")
    opened = open_model(model, step)
    with tempfile.TemporaryDirectory() as folder:
        sequences, source = read_text(opened, corpus, tokens, Path(folder))
        say(f"model     {opened.facts['model']}, {at_step(opened)}")
        S, T = len(sequences), opened.config.n_ctx
        say(f"text      {source['text']}: {S * T:,} tokens, {S:,} sequences")
        if compute is None:
            compute = opened.run.settings.train.compute if opened.run else "auto"
        counts, loss = _count(opened, sequences, model, workers, scheduler, compute)
        del sequences  # Windows does not remove what is mapped
    numbers = results(opened, counts, loss, source)
    _print(numbers, opened.config)
    with explained("writing the results"):
        if json_file:
            write_text(Path(json_file), json.dumps(numbers, indent=1))
            say(f"numbers   {json_file}")
        if csv_file:
            write_text(Path(csv_file), as_csv(numbers))
            say(f"table     {csv_file}")
        if counts_file:
            write_counts(Path(counts_file), counts)
            say(f"counts    {counts_file}")
    if opened.run:
        say(f"next      {command('report', model)}")


def read_text(
    opened: Model, corpus: str | None, tokens: int | None, folder: Path
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the text as sequences (S, T + 1), mapped from a file in ``folder``, and what it is."""
    from tqdm import tqdm

    from minirelu.config import TextConfig
    from minirelu.text.batches import consecutive, open_tokens, write_tokens
    from minirelu.text.corpus import open_corpus

    T = opened.config.n_ctx
    if corpus is None and opened.run is not None:
        facts = opened.run.corpus
        ids = open_tokens(opened.run.folder / "tokens" / "val.npy")
        text = f"{printable(str(facts['corpus']))}, the part held out in training"
        source = {"text": text, "sha256": facts["sha256"]}
    else:
        source_text = open_corpus(TextConfig(corpus=corpus or "stdlib"))
        documents = (*source_text.train, *source_text.val)
        size = {"unit": "B", "unit_scale": True, "leave": False, "disable": None}
        with tqdm(desc="checking", total=source_text.size, **size) as bar:
            facts = source_text.describe(bar.update)
        file, wanted = folder / "tokens.npy", tokens + 1 if tokens else float("inf")
        with tqdm(desc="reading", total=source_text.size, **size) as bar:
            write_tokens(file, documents, opened.tokenizer, bar.update, wanted)
        ids = open_tokens(file)
        source = {"text": printable(source_text.name), "sha256": facts["sha256"]}
        if opened.run is not None and facts["sha256"] == opened.run.corpus["sha256"]:
            source["text"] += ", which the model was trained on"
    sequences = consecutive(ids, T, tokens)
    if not len(sequences):
        raise UserError(
            f"the text is too short: {len(ids)} tokens, and a sequence of this model needs {T + 1}"
            if tokens is None or tokens >= T
            else f"--tokens: {tokens} is not allowed; a sequence of this model is {T} tokens"
        )
    return sequences, source


def _count(
    opened: Model,
    sequences: np.ndarray,
    folder: str,
    workers: int,
    scheduler: str | None,
    compute: str,
) -> tuple[UnitCounts, float]:
    """Measure shard by shard, with a bar, in this process or on workers."""
    from tqdm import tqdm

    from minirelu.interop.model import load_weights
    from minirelu.sparsity.shards import measure_shards
    from minirelu.workers import cluster, process_pool

    def local() -> tuple[Parameters, ModelConfig]:
        return opened.params, opened.config

    remote = functools.partial(load_weights, Path(folder).resolve(), opened.facts["step"])
    n = sequences.shape[0] * (sequences.shape[1] - 1)
    with contextlib.ExitStack() as stack:
        load, executor = local, None
        if scheduler is not None:
            load, executor = remote, stack.enter_context(cluster(scheduler))
        elif workers != 1:
            load, executor = remote, stack.enter_context(process_pool(workers))
        bar = stack.enter_context(tqdm(total=n, unit="token", unit_scale=True, disable=None))
        return measure_shards(load, sequences, executor, compute=compute, on_shard=bar.update)


def results(
    opened: Model, counts: UnitCounts, loss: float, source: dict[str, Any]
) -> dict[str, Any]:
    """Return everything that was measured, and what is needed to judge it or do it again."""
    from minirelu.runs.prepare import made_with
    from minirelu.sparsity.measures import summary

    return {
        **opened.facts,
        "made_with": made_with(),
        "corpus": source,
        "tokens": counts.n_tokens,
        "sequences": counts.n_sequences,
        "batch_tokens": counts.batch_size_used,
        "on_means": opened.config.activation.on_means,
        "loss": loss,
        "measures": summary(counts),
    }


def at_step(opened: Model) -> str:
    """'step 700, after 1,433,600 training tokens', or where the weights are from."""
    if opened.run is None:
        return "an OPT folder"
    return f"step {opened.facts['step']}, after {opened.facts['training_tokens']:,} training tokens"


def _print(numbers: dict[str, Any], config: ModelConfig) -> None:
    from minirelu.sparsity.measures import MEASURES, UNITS, what_on_means

    measures, tokens = numbers["measures"], numbers["tokens"]
    say(
        f"\nShares of each layer's units that are on; a batch is {numbers['batch_tokens']:,} "
        "tokens. Median: of the share of a\nsequence's positions at which its units are on, over "
        "those used in it and over all. Dormant: mean\nactivation at most 0.025 of the layer's. "
        f"Silent: never on in these {tokens:,} tokens.\n"
    )
    columns = [measure for measure in MEASURES.values() if measure.heading]
    rows = [["layer", *(measure.heading for measure in columns)]]
    for l, width in enumerate(config.mlp_widths):
        cells = [
            measure.text(measures[measure.name][l], digits=2)
            + (f" of {width:,}" if measure.unit == UNITS else "")
            for measure in columns
        ]
        rows.append([str(l), *cells])
    for row in rows:
        say("  ".join(f"{text:>12}" for text in row))
    if sentence := what_on_means(config):
        say(f"\n{sentence}")
    say(f"\nloss {numbers['loss']:.3f} nats per token")
    if min(tokens, numbers["batch_tokens"]) < 8192:
        say(f"(less than the 8,192 tokens of a full batch: {tokens:,})")


def as_csv(numbers: dict[str, Any]) -> str:
    """A row per layer: where and when it was measured, and every measure."""
    measures = numbers["measures"]
    facts = ("model", "step", "training_tokens", "tokens", "batch_tokens", "on_means")
    where = {name: numbers[name] for name in facts}
    where["corpus_sha256"] = numbers["corpus"]["sha256"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*where, "layer", *measures])
    for l in range(len(next(iter(measures.values())))):
        writer.writerow([*where.values(), l, *(values[l] for values in measures.values())])
    return text.getvalue()
