"""``minirelu death``: the experiments on why hidden units fall silent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.death_of_runs import history, overlap
from minirelu.cli.estimate import duration, seconds_of
from minirelu.cli.options import (
    PRESET_HELP,
    SettingsCommand,
    given_settings,
    settings_options,
    threads_option,
    use_threads,
)
from minirelu.cli.say import say
from minirelu.config import SECTIONS, Config
from minirelu.death.experiments import EXPERIMENTS
from minirelu.death.plan import Plan
from minirelu.errors import UserError

if TYPE_CHECKING:
    from minirelu.death.study import Study
    from minirelu.death.verdicts import Result


@click.group()
def death() -> None:
    """Ask why hidden units fall silent, and test the answers.

    Each experiment trains the runs it needs into a study's folder, or finds them there, and writes
    its numbers, a figure, and a verdict: what was seen, what is seen if nothing is behind it, and
    which of four explanations that speaks for (random, outliers, drift, geometry).

    \b
    Examples:
      minirelu death all --budget 30m --workers 2
      minirelu death twins --workers 2
      minirelu death history runs/small
    """


def _plan_options(wrapped: Callable) -> Callable:
    for f in reversed(dataclasses.fields(Plan)):
        flag = "--" + f.name.replace("_", "-")
        help = f"[study] {f.metadata['help']}  [default: {f.default}]"
        kind = f.metadata["kind"]
        wrapped = click.option(flag, f"plan_{f.name}", type=kind, default=None, help=help)(wrapped)
    return wrapped


def _experiment_command(name: str) -> click.Command:
    @click.option("--out", type=click.Path(), help="Folder of the study.  [default: studies/NAME]")
    @click.option("--preset", metavar="NAME", help=PRESET_HELP)
    @click.option(
        "--config", "config_file", type=click.Path(exists=True, dir_okay=False), help="A TOML file."
    )
    @click.option("--workers", type=int, default=1, show_default=True, help="Runs at a time.")
    @click.option("--arm", default="base", help="Ask about another arm, such as l1.")
    @_plan_options
    @settings_options
    @threads_option
    def run(out: str | None, preset: str | None, config_file: str | None, workers: int, arm: str,
            threads: int | None, **values: Any) -> None:  # fmt: skip
        use_threads(threads)
        arms = EXPERIMENTS[name].arms(arm)
        study = open_study(out, preset, config_file, values)
        train_arms(study, arms, workers)
        do(study, name, arm)

    what = EXPERIMENTS[name].what
    help = f"""{what}

    The study's folder is made if it is not there. Settings are those of `minirelu train`, with a
    history of every hidden unit; they and the thresholds of the verdict are written down before
    anything is trained, and cannot change afterwards.

    \b
    Example:
      minirelu death {name} --preset tiny --seeds 2
    """
    return click.command(name, cls=SettingsCommand, help=help)(run)


@death.command("all")
@click.option("--out", type=click.Path(), help="Folder of the study.  [default: studies/SIZE]")
@click.option(
    "--budget", default="30m", show_default=True, help="Time for all of it, as in 30m or 2h."
)
@click.option("--workers", type=int, default=1, show_default=True, help="Runs at a time.")
@threads_option
def everything(out: str | None, budget: str, workers: int, threads: int | None) -> None:
    """Do every experiment that a time budget allows, with models as large as it allows.

    It says what is given up: larger models, arms, seeds. The same command again goes on with what
    is not done.

    \b
    Examples:
      minirelu death all --budget 30m --workers 2
      minirelu death all --budget 8h --workers 2 --out studies/night
    """
    from minirelu.death.budget import configs, fit
    from minirelu.death.study import ARMS, Study
    from minirelu.estimate import run_seconds

    use_threads(threads)
    seconds = seconds_of(budget)
    if out and (Path(out) / "study.toml").is_file():
        study = Study.open(out)
        arms = tuple(arm for arm in ARMS if any(study.runs_folder.glob(f"{arm},seed=*")))
        say(f"{'goes on':9} with {study.folder}")
    else:
        chosen = fit(
            seconds, workers, configs(), Plan(),
            lambda base: run_seconds(base, base.train.steps)[0],
        )  # fmt: skip
        say(f"{'size':9} {chosen.size}: {chosen.base.model.n_layers} layers, d_mlp "
            f"{chosen.base.model.d_mlp}, {chosen.base.train.steps} steps; {chosen.plan.seeds} seeds"
            f"; about {duration(chosen.seconds)}")  # fmt: skip
        for what in chosen.given_up:
            say(f"{'given up':9} {what}")
        study = Study.make(out or Path("studies", chosen.size), chosen.base, chosen.plan)
        arms = chosen.arms
    train_arms(study, arms, workers)
    failed = []
    for name in EXPERIMENTS:
        say(f"\n== {name} ==")
        try:
            do(study, name)
        except UserError as e:  # one that has nothing to go by does not keep the others
            say(f"{'not done':9} {e}")
            failed.append(name)
    if len(failed) == len(EXPERIMENTS):
        raise UserError("no experiment could be done; see above why")
    say_matrix(study)


@death.command()
@click.argument("page", type=click.Path(dir_okay=False))
@click.argument("studies", nargs=-1, required=True, type=click.Path())
def page(page: str, studies: tuple[str, ...]) -> None:
    """Put the results of studies into a page of Markdown, between its two marks.

    \b
    Example:
      minirelu death page tutorials/neuron-death.md studies/small studies/wide
    """
    from minirelu.death.page import write_page
    from minirelu.death.study import Study

    n = write_page(Path(page), [Study.open(folder) for folder in studies], list(EXPERIMENTS))
    say(f"{'written':9} {page}, {n} results")


for _command in (history, overlap):
    death.add_command(_command)
for _name in EXPERIMENTS:
    death.add_command(_experiment_command(_name))


def open_study(
    out: str | None, preset: str | None, config_file: str | None, values: dict[str, Any]
) -> Study:
    """Open the study of a folder, or make it with the settings given."""
    from minirelu.death.study import Study

    name = preset or (Path(config_file).stem if config_file else "small")
    folder = Path(out) if out else Path("studies", name)
    plan_given = {
        f.name: values[f"plan_{f.name}"]
        for f in dataclasses.fields(Plan)
        if values.get(f"plan_{f.name}") is not None
    }
    given = given_settings(values)
    if (folder / "study.toml").is_file():
        known = Study.open(folder)
        tables = known.base.tables()
        if preset or config_file:
            tables = _with_grid(preset, config_file, given).tables()
            tables["model"]["d_vocab"] = known.base.model.d_vocab
        for section in SECTIONS:
            tables[section] |= given[section]
        plan = dataclasses.replace(known.plan, **plan_given)
        return Study.make(folder, Config.from_tables(tables), plan)
    return Study.make(folder, _with_grid(preset, config_file, given), Plan(**plan_given))


def _with_grid(
    preset: str | None, config_file: str | None, given: dict[str, dict[str, Any]]
) -> Config:
    """Settings of a study's base: those given, or 320 steps and a history of 40 records."""
    from minirelu.death.study import default_grid

    train = Config.build(preset, config_file, given).train
    steps = {} if preset or config_file else {"steps": 320}
    options = {**given, "train": {**steps, **given.get("train", {})}}
    train = Config.build(preset, config_file, options).train
    options["train"] = {"snapshot_budget_gb": 0.3, **default_grid(train), **options["train"]}
    return Config.build(preset, config_file, options)


def train_arms(study: Study, arms: tuple[str, ...], workers: int) -> None:
    """Train what is missing of some arms; say what, and how long it should take."""
    from tqdm import tqdm

    from minirelu.cli.train import stop_on_ctrl_c
    from minirelu.estimate import flops
    from minirelu.sweeps.folder import last_step
    from minirelu.sweeps.running import Watching, expected_seconds, refuse_too_many

    missing = study.missing(arms)
    say(f"{'study':9} {study.folder}; arms {', '.join(arms)}; {study.plan.seeds} seeds each")
    if not missing:
        say(f"{'trained':9} already")
        return
    refuse_too_many(workers, missing)
    seconds = 1.5 * expected_seconds(study.runs_folder, missing)  # histories take about half more
    at_a_time = "one after the other" if workers == 1 else f"{workers} at a time"
    say(f"{'time':9} about {duration(seconds)} for {len(missing)} trainings, {at_a_time}")
    weight = {p.name: flops(p.settings, share_on=0.2) for p in missing}

    def work() -> float:
        return sum(weight[p.name] * last_step(study.runs_folder, p) for p in missing)

    with (
        stop_on_ctrl_c() as stopping,
        tqdm(
            total=sum(weight[p.name] * p.settings.train.steps for p in missing),
            bar_format="{percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left",
            smoothing=0, leave=False, disable=None,
        ) as bar,
    ):  # fmt: skip

        def on_look() -> None:
            bar.n = work()
            bar.refresh()

        def on_finished(point: Any) -> None:
            with bar.external_write_mode():
                say(f"{'trained':9} {point.name}")

        study.train(
            arms,
            workers,
            Watching(stopping.is_set, on_look=on_look, on_finished=on_finished),
        )
        if study.missing(arms):
            say("stopped; what is trained is saved, and the same command goes on")
            raise SystemExit(130)


def do(study: Study, name: str, arm: str = "base") -> Result:
    """Do one experiment whose runs are trained: print and write its verdict and its figure."""
    from tqdm import tqdm

    from minirelu.death.verdicts import result_name, write_result
    from minirelu.figures.studies import save_figure

    with tqdm(desc=name, leave=False, disable=None) as bar:

        def on_progress(n: int, of: int) -> None:
            bar.total = of
            bar.update(n)

        watched = dataclasses.replace(study, on_progress=on_progress)
        result = EXPERIMENTS[name].run(watched, arm)
    content = write_result(result, study)
    say_result(content)
    say(f"{'written':9} {study.folder / 'results' / result_name(name, arm)}.json, .csv")
    say(f"{'figure':9} {save_figure(content, study.folder / 'figures')}")
    return result


def say_matrix(study: Study) -> None:
    """Print which explanations each experiment of a study speaks for, layer by layer."""
    from minirelu.death.page import matrix
    from minirelu.death.verdicts import EXPLANATIONS, read_result

    head, body = matrix([c for c in (read_result(study, name) for name in EXPERIMENTS) if c])
    say("\nWhich explanation each experiment speaks for")
    for letter, meaning in EXPLANATIONS.items():
        say(f"  {letter}  {meaning}")
    wide = [max(len(cells[i]) for cells in (head, *body)) for i in range(len(head))]
    for cells in (head, *body):
        say("  ".join(f"{cell:{width}}" for cell, width in zip(cells, wide, strict=True)))


def say_result(content: dict[str, Any]) -> None:
    """Print a verdict: the predictions, the table, the conclusion."""
    from minirelu.death.verdicts import EXPLANATIONS

    say(f"\n{content['question']}")
    for letter, prediction in content["predictions"].items():
        say(f"  {letter}  {EXPLANATIONS[letter].partition(':')[0]:9} {prediction}")
    say()
    wide = max((len(row["statistic"]) for row in content["rows"]), default=9)
    say(f"{'layer':>5}  {'phase':>9}  {'statistic':{wide}}  {'mean':>8}  "
        f"{'95 % over seeds':>17}  {'null':>8}  says")  # fmt: skip
    for row in content["rows"]:
        interval = "-"
        if row["low"] is not None:
            interval = f"{row['low']:.3g} to {row['high']:.3g}"
        mean = "-" if row["mean"] is None else f"{row['mean']:.3g}"
        say(
            f"{row['where']:>5}  {row['phase']:>9}  {row['statistic']:{wide}}  {mean:>8}  "
            f"{interval:>17}  {row['null']:>8}  {row['says']}"
        )
    say(f"\n{content['conclusion']}")
