"""``minirelu train``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.estimate import memory_text, time_text
from minirelu.cli.options import (
    PRESET_HELP,
    SettingsCommand,
    given_settings,
    settings_options,
    threads_option,
    use_threads,
)
from minirelu.cli.report import write_page
from minirelu.cli.say import say
from minirelu.config import Config
from minirelu.errors import UserError, command

if TYPE_CHECKING:
    from minirelu.runs.run import Run


@click.command(cls=SettingsCommand)
@click.option("--preset", help=PRESET_HELP)
@click.option("--config", "config_file", type=click.Path(), help="Settings from a TOML file.")
@click.option(
    "--out",
    type=click.Path(),
    help="Folder of the run.  [default: in runs, named after preset or file]",
)
@click.option("--resume", type=click.Path(), help="Go on with an interrupted run.")
@click.option(
    "--from", "parent", type=click.Path(), metavar="RUN", help="Branch a new run off this one ..."
)
@click.option(
    "--at", type=int, metavar="STEP", help="... at this step; options say what is different."
)
@threads_option
@settings_options
def train(
    preset: str | None,
    config_file: str | None,
    out: str | None,
    resume: str | None,
    parent: str | None,
    at: int | None,
    threads: int | None,
    **values: Any,
) -> None:
    """Train a model, watch its hidden units, and write a report.

    Without options: a model of preset `small` on the source of Python's standard library, a few
    minutes on two cores. Options override the TOML file, and that overrides the preset.

    \b
    Examples:
      minirelu train
      minirelu train --corpus my.txt --steps 2000
      minirelu train --preset tiny --d-mlp 512 --out runs/mine
      minirelu train --resume runs/small
      minirelu train --from runs/small --at 700 --steps 1400 --data-seed 1
    """
    options = given_settings(values)
    use_threads(threads)
    if (parent is None) != (at is None):
        raise UserError("--from RUN and --at STEP go together; give both")
    taken = {"preset": preset, "config": config_file, "from": parent}
    if resume is not None:
        for name, value in (taken | {"out": out}).items():
            if value is not None:
                raise UserError(f"--resume takes everything from the run; leave out --{name}")
        run = _reopen(resume, options)
    elif parent is not None and at is not None:
        for name in ("preset", "config"):
            if taken[name] is not None:
                raise UserError(f"--from takes the settings of the run; leave out --{name}")
        run = _branch(parent, at, out, options)
    else:
        run = _prepare(preset, config_file, out, options)
    _describe(run)
    with stop_on_ctrl_c() as stopping:
        finished = train_with_progress(run, stopping)
    if not finished:
        step = run.steps[-1]
        go_on = command("train --resume", run.folder)
        say(f"stopped at step {step}, all saved; go on with:  {go_on}")
        raise SystemExit(130)
    _show_results(run)


def _reopen(folder: str, options: dict[str, dict[str, Any]]) -> Run:
    """Open a run to go on with it; refuse options that would change its settings."""
    from minirelu.runs.run import Run

    run = Run.open(folder)
    tables = run.settings.tables()
    for section, given in options.items():
        tables[section].update(given)
    changed = run.settings.differences(Config.from_tables(tables))
    if changed:
        raise UserError(
            f"cannot change settings while resuming {folder} ({'; '.join(changed)}); "
            "leave the option out, or start a new run"
        )
    _check_code(run.settings, options)
    return run


def _branch(parent: str, at: int, out: str | None, options: dict[str, dict[str, Any]]) -> Run:
    """Make the folder of a run that goes on from a step of another one."""
    from minirelu.runs.branch import branch
    from minirelu.runs.prepare import free_folder
    from minirelu.runs.run import Run

    run = Run.open(parent)
    tables = run.settings.tables()
    for section, given in options.items():
        tables[section].update(given)
    settings = Config.from_tables(tables)
    _check_code(settings, options)
    child = branch(run, at, settings, out or free_folder(f"{run.name}-at-{at}"))
    changed = "; ".join(settings.differences(run.settings)) or "nothing changed: the same bits"
    say(f"{'branch':9} of {run.folder} at step {at}; {changed}")
    return child


def _check_code(settings: Config, options: dict[str, Any]) -> None:
    """Refuse code that does not agree with itself, once, before there is a folder."""
    from minirelu.compute import by_reference, refuse_disagreement

    by_reference(settings.train.compute, settings.model)  # raises where it cannot be computed so
    if settings.train.compute == "auto" and "compute" not in options["train"]:
        refuse_disagreement(settings.model)


def _prepare(
    preset: str | None, config_file: str | None, out: str | None, options: dict[str, Any]
) -> Run:
    """Make the folder of a new run."""
    from tqdm import tqdm

    from minirelu.runs.prepare import create_run, free_folder, refuse_taken

    settings = Config.build(preset, config_file, options)
    name = preset or (Path(config_file).stem if config_file else "small")
    folder = Path(out) if out else free_folder(name)
    refuse_taken(folder)
    _check_code(settings, options)
    # disable=None: no bar where the output is not a terminal
    with tqdm(desc="reading", unit="B", unit_scale=True, leave=False, disable=None) as bar:

        def on_read(n: int, of: int) -> None:
            bar.total = of
            bar.update(n)

        run = create_run(settings, folder, on_read)
    if run.config.d_vocab != settings.model.d_vocab:
        asked = settings.model.d_vocab
        say(f"the tokenizer has {run.config.d_vocab} tokens, so d_vocab is that, not {asked}")
    return run


def _describe(run: Run) -> None:
    """Print what will be done and how long it should take."""
    from minirelu.estimate import drawing_seconds, run_seconds
    from minirelu.report.page import run_facts
    from minirelu.runs.checkpoint import weight_bytes
    from minirelu.training.state import kept_weights

    for name, text in run_facts(run).items():
        say(f"{name:9} {text}")
    nats = ", ".join(f"{name} {x:.2f}" for name, x in run.corpus["baselines"].items())
    say(f"{'to beat':9} {nats} (nats per token)")
    left = run.settings.train.steps - _steps_done(run)
    say(f"{'memory':9} {memory_text(run.settings)}")
    if not left:
        say(f"{'finished':9} already, at step {run.settings.train.steps}")
    else:
        training, each = run_seconds(run.settings, left, _steps_done(run))
        seconds = {"training": training, "drawing": drawing_seconds(run.settings, each)}
        say(f"{'time':9} {time_text(left, seconds, each)}")
    kept = kept_weights(run.settings)
    disk = len(kept) * weight_bytes(run.config)
    say(
        f"{'folder':9} {run.folder}; weights of {len(kept)} steps stay, "
        f"{disk / 1e6:.0f} MB (--snapshot-budget-gb)"
    )


def _steps_done(run: Run) -> int:
    from minirelu.runs.checkpoint import checkpoint_steps

    return (checkpoint_steps(run.checkpoints, resumable=True) or [0])[-1]


def train_with_progress(run: Run, stopping: threading.Event) -> bool:
    """Train; a bar for every step, a line for every probe."""
    from tqdm import tqdm

    from minirelu.training.trainer import train as train_run

    n_layers = run.config.n_layers
    shown = list(range(n_layers)) if n_layers <= 8 else [0, 1, n_layers // 2, n_layers - 1]
    heading = " ".join(f"{'L' + str(l):>6}" for l in shown)
    say(f"\n  step  val loss   share of hidden units on at a token, by layer\n{'':18}{heading}")

    done = _steps_done(run)
    with tqdm(total=run.settings.train.steps, initial=done, unit="step", disable=None) as bar:

        def on_record(record: dict[str, Any]) -> None:
            bar.n = record["step"]
            if record["kind"] == "train":
                speed = f"{record['tokens_per_second']:.0f}"
                bar.set_postfix({"loss": f"{record['loss']:.3f}", "tok/s": speed}, refresh=False)
                bar.update(0)
                return
            use = " ".join(f"{100 * record['per_token'][l]:5.1f}%" for l in shown)
            with bar.external_write_mode():  # the bar steps aside
                say(f"{record['step']:6} {record['val_loss']:9.3f}  {use}")

        return train_run(run, on_record, stopping.is_set, unchecked=True)


def _show_results(run: Run) -> None:
    """Print the table of layers, write the report, and name the next command."""
    from minirelu.report.page import layer_rows
    from minirelu.runs.run import probes_of
    from minirelu.sparsity.measures import report_measures, what_on_means

    probe = probes_of(run)[-1]
    say(
        f"\nHidden units in use at step {probe['step']}: shares of each layer's units, a batch is "
        f"{probe['batch_tokens']} tokens;\nmedian used: at what share of a sequence's positions "
        "the median used unit is on\n"
    )
    columns = ("layer", *(measure.heading or measure.name for measure in report_measures()))
    for row in (columns, *(row.values() for row in layer_rows(probe))):
        say("  ".join(f"{cell:>12}" for cell in row))
    if sentence := what_on_means(run.config):
        say(f"\n{sentence}")
    say(f"\nvalidation loss {probe['val_loss']:.3f} nats per token")
    for name, nats in run.corpus["baselines"].items():
        say(
            f"    {'better' if probe['val_loss'] < nats else 'not better'} than {name} ({nats:.3f})"
        )
    say(f"report  {write_page(run)}")
    say(f"next    {command('sample', run.folder)}")


@contextmanager
def stop_on_ctrl_c() -> Iterator[threading.Event]:
    """Let the first Ctrl-C (or SIGTERM) end the training after its step, the second at once."""
    stopping = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        click.echo("\nstopping after this step ... (Ctrl-C again: at once)", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
