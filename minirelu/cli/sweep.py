"""``minirelu sweep``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.estimate import duration, seconds_of
from minirelu.cli.options import (
    PRESET_HELP,
    SCHEDULER_HELP,
    SettingsCommand,
    given_settings,
    settings_options,
    threads_option,
    use_threads,
)
from minirelu.cli.say import say
from minirelu.cli.train import stop_on_ctrl_c
from minirelu.errors import UserError, command, shown

if TYPE_CHECKING:
    from minirelu.sparsity.measures import Measure
    from minirelu.sweeps.running import Watching
    from minirelu.sweeps.sweep import Point, Sweep

_OUT_HELP = "Folder of the sweep.  [default: in sweeps, named after what varies]"
_WORKERS_HELP = "Train this many runs at a time, each with its share of the threads."


@click.command(cls=SettingsCommand)
@click.argument("name", required=False)
@click.option(
    "--vary",
    multiple=True,
    metavar="FIELD=VALUE,...",
    help="A setting and its values; several make a grid. A number per layer is written 64-32-64.",
)
@click.option(
    "--fraction",
    type=int,
    metavar="RUNS",
    help="Of settings with two values each, a balanced fraction of the grid: 8, 16, 32 ... runs.",
)
@click.option(
    "--design",
    type=click.Path(),
    metavar="FILE",
    help="A table (CSV) of the combinations to run: a column for each setting, a row for each run.",
)
@click.option("--seeds", type=int, help="Runs of each combination.  [default: 3]")
@click.option("--budget", metavar="TIME", help="Refuse a sweep that takes longer, as in 2h or 30m.")
@click.option("--preset", help=PRESET_HELP)
@click.option("--config", "config_file", type=click.Path(), help="Settings from a TOML file.")
@click.option("--out", type=click.Path(), help=_OUT_HELP)
@click.option("--workers", type=int, default=1, show_default=True, help=_WORKERS_HELP)
@click.option("--scheduler", metavar="ADDRESS", help=SCHEDULER_HELP)
@threads_option
@settings_options
def sweep(
    name: str | None,
    vary: tuple[str, ...],
    fraction: int | None,
    design: str | None,
    seeds: int | None,
    budget: str | None,
    preset: str | None,
    config_file: str | None,
    out: str | None,
    workers: int,
    scheduler: str | None,
    threads: int | None,
    **values: Any,
) -> None:
    """Train many runs that differ in some settings.

    Their numbers are gathered in a table.

    NAME is a sweep to start from: fig3 (width) or fig4 (depth) of the paper, so small that a run
    takes about a minute; fig3-paper or fig4-paper, at its geometry: days; ladder-d-mlp,
    ladder-d-model or ladder-act-fn, from too small a model to an ample one; screen, twelve settings
    at two values each in 32 runs, for `minirelu effects`; causes and biases, what keeps a first
    layer from going quiet. Every other option of `minirelu train` can be given too, for all runs.

    Each run has a folder of its own. The same command again continues what is not finished and
    never repeats a finished run; it may also have more values or seeds than before.

    \b
    Examples:
      minirelu sweep fig3
      minirelu sweep --vary d_mlp=512,1024,2048 --seeds 3 --preset tiny
      minirelu sweep --vary learning_rate=1e-3,1e-2 --vary bias=true,false --workers 2
      minirelu sweep --design screen.csv --seeds 1 --budget 2h
    """
    from minirelu.sweeps.running import run_sweep

    use_threads(threads)
    if workers != 1 and scheduler is not None:
        raise UserError("--workers are processes here, --scheduler has workers elsewhere; give one")
    planned = _plan(
        name, vary, seeds, preset, config_file, given_settings(values), fraction, design
    )
    if design:
        name = Path(design).stem
    start = name or "-".join([preset or Path(config_file or "small").stem, *planned.vary])
    folder = Path(out) if out else Path("sweeps", start)
    with contextlib.ExitStack() as stack:
        cluster = None
        if scheduler is not None:
            from minirelu.workers import cluster as connect

            cluster = stack.enter_context(connect(scheduler))
        progress = _Progress(planned, folder)
        progress.describe(workers, scheduler, None if budget is None else seconds_of(budget))
        stopping = stack.enter_context(stop_on_ctrl_c())
        watching = stack.enter_context(progress.watching(stopping.is_set))
        failures = run_sweep(planned, folder, workers, cluster, watching)
    _conclude(planned, folder, failures, stopping.is_set())


def _plan(
    name: str | None,
    vary: tuple[str, ...],
    seeds: int | None,
    preset: str | None,
    config_file: str | None,
    options: dict[str, dict[str, Any]],
    fraction: int | None,
    design: str | None,
) -> Sweep:
    """Combine what was given on the command line."""
    from minirelu.sweeps.design import fraction as fraction_of
    from minirelu.sweeps.design import read_design
    from minirelu.sweeps.sweep import NAMED, Sweep, parse_vary

    if design is not None:
        if name is not None or vary or fraction is not None:
            raise UserError("--design says what varies; leave out NAME, --vary and --fraction")
        varied, rows = read_design(design)
        seeds = 3 if seeds is None else seeds
        try:
            return Sweep.build(preset, config_file, options, varied, seeds, rows)
        except UserError as e:
            raise UserError(f"{shown(design)}, or an option: {e}") from None
    if name is None and not vary and seeds is None:
        raise UserError(
            f"nothing varies; name a sweep ({', '.join(NAMED)}), or give --vary, as in "
            "--vary d_mlp=512,1024,2048, or --seeds"
        )
    varied, seeds = parse_vary(vary), 3 if seeds is None else seeds
    if fraction is not None:
        if name is not None:
            raise UserError(f"the sweep {name} has its own combinations; leave out --fraction")
        rows = fraction_of(varied, fraction)
        return Sweep.build(preset, config_file, options, varied, seeds, rows)
    if name is None:
        return Sweep.build(preset, config_file, options, varied, seeds)
    for option, value in (("preset", preset), ("config", config_file)):
        if value is not None:
            raise UserError(f"the sweep {name} has its own settings; leave out --{option}")
    return Sweep.named(name, options, varied, seeds)


class _Progress:
    """What is printed before and during a sweep."""

    def __init__(self, planned: Sweep, folder: Path) -> None:
        from minirelu.estimate import flops

        self.sweep, self.folder, self.points = planned, folder, planned.points()
        self.weight = {p.name: flops(p.settings, share_on=0.2) for p in self.points}
        self.finished: set[str] = set()

    def describe(self, workers: int, scheduler: str | None, budget: float | None) -> None:
        """Print what will be done, what is done already, and how long the rest should take.

        Raises where that is more than the budget, in seconds; nothing has been trained then.
        """
        from minirelu.runs.checkpoint import weight_bytes
        from minirelu.sweeps.folder import check_folder, is_finished, steps_done
        from minirelu.sweeps.running import expected_seconds, refuse_too_many
        from minirelu.sweeps.sweep import value_name
        from minirelu.training.state import kept_weights

        check_folder(self.sweep, self.folder)
        refuse_too_many(workers, self.points)
        what = [
            f"{name} {', '.join(value_name(v) or 'none' for v in vs)}"
            for name, vs in self.sweep.vary.items()
        ]
        what.append(f"seed {', '.join(dict.fromkeys(str(p.values['seed']) for p in self.points))}")
        say(f"{'sweep':9} {len(self.points)} runs: {'; '.join(what)}")
        self.finished = {p.name for p in self.points if is_finished(self.folder, p)}
        left = [p for p in self.points if p.name not in self.finished]
        begun = sum(steps_done(self.folder, p) > 0 for p in left)
        say(f"{'folder':9} {self.folder}; {len(self.finished)} runs are finished, {begun} begun")
        disk = sum(weight_bytes(p.settings.model) * len(kept_weights(p.settings)) for p in left)
        say(f"{'disk':9} about {disk / 1e6:,.0f} MB of weights (--snapshot-budget-gb)")
        if left:
            expected = expected_seconds(self.folder, left)
            if budget is not None and expected / workers > budget:
                raise UserError(
                    f"{len(left)} runs need about {duration(expected / workers)}, and --budget is "
                    f"{duration(budget)}; choose fewer runs, seeds or steps"
                )
            seconds = duration(expected)
            where = "one after the other" if workers == 1 else f"{workers} at a time"
            if scheduler is not None:
                where = f"one after the other here, less on the workers of {scheduler}"
            say(f"{'time':9} about {seconds} for {len(left)} runs, {where}")
        say()

    @contextlib.contextmanager
    def watching(self, should_stop: Callable[[], bool]) -> Iterator[Watching]:
        """Show a bar, of work and not of runs, and a line for every run that ends."""
        from tqdm import tqdm

        from minirelu.sweeps.folder import last_step, steps_done
        from minirelu.sweeps.running import Watching

        def work(steps: Callable[[Path, Point], int]) -> float:
            return sum(self.weight[p.name] * steps(self.folder, p) for p in self.points)

        with tqdm(
            total=work(lambda _, p: p.settings.train.steps),
            initial=work(steps_done),
            bar_format="{percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left{postfix}",
            smoothing=0,
            leave=False,
            disable=None,  # no bar where the output is not a terminal
        ) as bar:
            read = 0

            def on_read(n: int, of: int) -> None:
                nonlocal read
                read += n
                bar.set_postfix_str(f"reading: {read / 1e6:.0f} of {of / 1e6:.0f} MB")

            def on_look() -> None:
                bar.set_postfix_str("", refresh=False)
                bar.n = work(last_step)
                bar.refresh()

            def on_finished(point: Point) -> None:
                self.finished.add(point.name)
                with bar.external_write_mode():  # the bar steps aside
                    self._say_finished(point)

            def on_failed(point: Point, why: str) -> None:
                with bar.external_write_mode():
                    say(f"failed  {point.name}: {why}")

            yield Watching(should_stop, on_read, on_look, on_finished, on_failed)

    def _say_finished(self, point: Point) -> None:
        from minirelu.runs.run import Run

        probe = Run.open(self.folder / point.name).probes()[-1]
        n, of = len(self.finished), len(self.points)
        use = " ".join(f"{100 * x:.0f}" for x in probe["per_batch"])
        say(
            f"{n:>{len(str(of))}}/{of}  {point.name}  val loss {probe['val_loss']:.3f}, "
            f"used per batch, by layer: {use} %"
        )


def _conclude(planned: Sweep, folder: Path, failures: dict[str, str], stopped: bool) -> None:
    """Print the table, and name the next command."""
    from minirelu.sweeps.folder import finished_runs, table

    runs = finished_runs(folder, planned)
    if stopped and len(runs) + len(failures) < len(planned.points()):
        say(f"stopped after {len(runs)} finished runs, all saved; the same command goes on")
        raise SystemExit(130)
    if runs:
        _say_table(planned, table(runs))
        say(f"table   {folder / 'sweep.csv'}, and with settings and versions sweep.json")
    (field, *others) = planned.vary or ("",)
    figure = {"d_mlp": "fig3", "n_layers": "fig4"}.get(field, "ladder" if field else "")
    if any(isinstance(value, tuple) for value in planned.vary.get("d_mlp", ())):
        figure = "ladder"  # no axis has a place for several numbers
    if others:
        figure = ""
    two_each = all(len(values) == 2 for values in planned.vary.values())
    if failures:
        name, why = list(failures.items())[-1]
        raise UserError(
            f"{len(failures)} of {len(planned.points())} runs failed, the last one {name}: {why}"
        )
    first = folder / planned.points()[0].name
    if figure:
        next_one = command(f"figure {figure}", folder)
    elif others and two_each:
        next_one = command("effects", folder)
    else:
        next_one = command("report", first)
    say(f"next    {next_one}")


def _say_table(planned: Sweep, rows: list[dict[str, Any]]) -> None:
    """Print measures by layer: mean over the seeds, and their range."""
    from minirelu.sparsity.measures import report_measures, what_on_means
    from minirelu.sweeps.sweep import value_name

    measures = report_measures()
    order = [tuple(point.values[field] for field in planned.vary) for point in planned.points()]
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[field] for field in planned.vary), []).append(row)
    say(
        f"\nHidden units in use, shares in %: mean (and range) of {planned.seeds} seed(s); a "
        f"batch is {', '.join(sorted({str(row['batch_tokens']) for row in rows}))} tokens\n"
    )
    _say_row((*planned.vary, "layer"), [m.heading or m.name for m in measures])
    for values, of_values in sorted(groups.items(), key=lambda group: order.index(group[0])):
        for l in sorted({row["layer"] for row in of_values}):
            of_layer = [row for row in of_values if row["layer"] == l]
            cells = [_range([row[m.name] for row in of_layer], m) for m in measures]
            _say_row((*map(value_name, values), l), cells)
    say()
    for sentence in dict.fromkeys(what_on_means(p.settings.model) for p in planned.points()):
        if sentence:
            say(f"{sentence}\n")


def _say_row(names: tuple[Any, ...], cells: list[str]) -> None:
    say("  ".join([f"{name!s:>8}" for name in names] + [f"{cell:>19}" for cell in cells]))


def _range(values: list[float | None], measure: Measure) -> str:
    """'12.3 (11.9-12.8)'; a single value has no range; '-' where nothing was measured."""
    from minirelu.figures.runs import mean_and_range

    mean, low, high = mean_and_range(values)
    if mean is None or low is None or high is None:
        return "-"
    scale = 100 if measure.is_share else 1
    text = f"{scale * mean:.1f}"
    return text if len(values) == 1 else f"{text} ({scale * low:.1f}-{scale * high:.1f})"
