"""``minirelu prune``."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.found import about, print_table, results_options, write_found
from minirelu.cli.options import threads_option, use_threads
from minirelu.cli.say import say
from minirelu.errors import UserError, command, shown

if TYPE_CHECKING:
    import numpy as np

    from minirelu.model.parameters import Parameters
    from minirelu.pruning.choice import Choice
    from minirelu.runs.run import Run


class Scope(click.ParamType):
    """``each``, ``global``, or the number of a layer."""

    name = "each|global|LAYER"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """``"3"`` to 3; whether there is such a layer is seen later."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(), metavar="RUN...")
@click.option("--by", help="Criterion.  [default: every one for curves, else first_order]")
@click.option(
    "--scope", type=Scope(),
    help="Remove from each layer alike, from all together, or from one.  [default: each of these "
    "for curves, else global]",
)  # fmt: skip
@click.option(
    "--tokens", default=16384, show_default=True,
    help="Of the text to rank units on, and of the held-out text to measure on.",
)  # fmt: skip
@click.option("--corpus", help="Another text to rank and measure on: a UTF-8 file or a folder.")
@click.option("--step", type=int, help="Weights of an earlier step.  [default: the last]")
@click.option("--share", type=float, help="With --out or --trial: remove this share, 0 to 1.")
@click.option(
    "--within", type=float, metavar="PERCENT",
    help="Or: as many units as raise the held-out loss by at most this.",
)  # fmt: skip
@click.option("--out", type=click.Path(), help="Write a smaller run to this folder ...")
@click.option(
    "--fine-tune", type=int, metavar="STEPS",
    help="... and train it on for so many steps.  [default: 0; of a trial 100]",
)  # fmt: skip
@click.option(
    "--trial", type=click.Path(), metavar="FOLDER",
    help="Train here what pruning is to be compared with; the same command goes on.",
)  # fmt: skip
@click.option(
    "--workers", default=1, show_default=True, help="Runs of a trial that are trained at a time."
)
@results_options
@threads_option
def prune(
    folders: tuple[str, ...],
    by: str | None,
    scope: str | int | None,
    tokens: int,
    corpus: str | None,
    step: int | None,
    share: float | None,
    within: float | None,
    out: str | None,
    fine_tune: int | None,
    trial: str | None,
    workers: int,
    json_file: str | None,
    figure: str | None,
    page: str | None,
    threads: int | None,
) -> None:
    """Remove hidden units, and see what it costs.

    Units are ranked on text that the run was trained on, and the smaller models measured on text
    that it held out. Of one RUN, or of several that differ in their seeds (a folder of runs stands
    for all in it), it measures loss and next-token accuracy against the share removed. RUN may
    also be the folder of an OPT model, given a --corpus.

    With --out it writes the smaller model: a run of its own, which trains on, samples, exports.
    With --trial it finds out what pruning is worth: the pruned model and one pruned at random,
    both trained on for some steps, against the small model trained from new weights for as many
    steps, and for as long.

    \b
    Examples:
      minirelu prune runs/small
      minirelu prune runs/small --within 1 --out runs/pruned --fine-tune 100
      minirelu prune sweeps/seeds --within 1 --trial sweeps/pruning
    """
    from minirelu.figures import pruning as figures
    from minirelu.pruning import tables
    from minirelu.pruning.choice import Choice
    from minirelu.runs.markdown import table

    use_threads(threads)
    if not folders:
        raise UserError("name a run, or several, as in: minirelu prune runs/small")
    if tokens < 1:
        raise UserError(f"--tokens: {tokens} is not allowed; it must be 1 or more")
    if out is not None and trial is not None:
        raise UserError("--out writes one smaller run, --trial trains several; give one")
    curves = out is None and trial is None
    if curves and not (share is within is fine_tune is None):
        raise UserError("--share, --within and --fine-tune go with --out or --trial; add one")
    if not curves and corpus is not None:
        raise UserError("--corpus is for curves; a smaller run is measured on what it held out")
    if fine_tune is not None and fine_tune < 0:
        raise UserError(f"--fine-tune: {fine_tune} is not allowed; it must be 0 or more")
    if curves:
        content = _survey(folders, by, scope, tokens, corpus, step)
        _print_survey(content)
        write_found(
            content, figures.prune(content), _survey_text(content), "prune",
            json_file, figure, page,
        )  # fmt: skip
        if content["runs"]:
            say(f"next      {command('prune --within 1 --out runs/pruned', folders[0])}")
        return
    choice = Choice(
        by or "first_order", "global" if scope is None else scope, tokens, share,
        None if within is None else within / 100,
    )  # fmt: skip
    if trial is not None:
        if step is not None:
            raise UserError("--step: a trial begins where the runs end; leave it out")
        content = _trial(folders, choice, trial, 100 if fine_tune is None else fine_tune, workers)
        rows = tables.of_trial(content)
        say(f"\n{content['title']}; {len(content['runs'])} seeds, 95 % intervals")
        print_table(rows)
        write_found(
            content, figures.trial(content), table(rows[0], rows[1:]), "prune-trial",
            json_file, figure, page,
        )  # fmt: skip
    elif out is not None:
        if figure:
            raise UserError("--figure goes with curves, or with --trial")
        _smaller(folders, choice, step, out, fine_tune or 0, json_file, page)


def _survey(
    folders: tuple[str, ...],
    by: str | None,
    scope: str | int | None,
    tokens: int,
    corpus: str | None,
    step: int | None,
) -> dict[str, Any]:
    """Curves of every model named."""
    from tqdm import tqdm

    from minirelu.figures.runs import open_runs
    from minirelu.pruning.curves import SHARES
    from minirelu.pruning.rankings import CRITERIA
    from minirelu.pruning.survey import scopes_of, survey

    names = [Path(folder) for folder in folders]
    if not any((folder / "config.json").is_file() for folder in names):
        names = [run.folder for run in open_runs(folders)]
    models = [_Ready(folder, corpus, tokens, step) for folder in names]
    runs = [m.run for m in models if m.run]
    refuse_unlike(runs)
    surveys = []
    for m in models:
        criteria = list(CRITERIA) if by is None else [by]
        if by is None and m.second_moment is None:
            criteria.remove("second_order")
        scopes = scopes_of(m.params.config.n_layers) if scope is None else [scope]
        say(f"model     {m.facts['model']}, step {m.facts['step']}")
        total = len(criteria) * len(scopes) * len(SHARES)
        with tqdm(total=total, unit="model", leave=False, disable=None) as bar:
            found = survey(
                m.params, *m.texts, criteria=criteria, scopes=scopes,
                second_moment=m.second_moment, compute=m.compute, seed=m.seed, on_point=bar.update,
            )  # fmt: skip
        surveys.append({"model": m.facts["model"], "step": m.facts["step"], "seed": m.seed} | found)
    first = models[0]
    ranked_on, measured_on = (text[:, 1:].size for text in first.texts)
    return {
        **about(runs, first.facts["config"], first.sha256),
        "ranked_on": ranked_on,
        "tokens": measured_on,
        "surveys": surveys,
    }


class _Ready:
    """A model, and the two texts it is ranked and measured on."""

    params: Parameters
    texts: tuple[np.ndarray, np.ndarray]

    def __init__(self, folder: Path, corpus: str | None, tokens: int, step: int | None) -> None:
        from minirelu.cli.sparsity import read_text
        from minirelu.interop.model import open_model
        from minirelu.pruning.pruned_run import second_moment
        from minirelu.pruning.texts import halves, trained_on

        opened = open_model(folder, step)
        self.params, self.facts, self.run = opened.params, opened.facts, opened.run
        self.compute, self.seed, self.second_moment = "auto", 0, None
        if self.run is not None:
            train = self.run.settings.train
            self.compute, self.seed = train.compute, train.seed
            self.second_moment = second_moment(self.run, self.facts["step"])
        if corpus is None and self.run is not None:
            self.texts = trained_on(self.run, tokens), self.run.held_out(tokens)
            self.sha256 = self.run.corpus["sha256"]
        elif corpus is None:
            raise UserError(f"{shown(folder)} is an OPT folder and has no text; give --corpus")
        else:
            with tempfile.TemporaryDirectory() as temporary:
                sequences, source = read_text(opened, corpus, 2 * tokens, Path(temporary))
                self.texts = halves(sequences.copy())  # Windows does not remove what is mapped
                del sequences
            self.sha256 = source["sha256"]
            if not len(self.texts[1]):
                raise UserError(
                    "the text is too short: one sequence to rank units on, and one to measure on, "
                    f"take {2 * opened.config.n_ctx + 1} tokens"
                )


def _print_survey(content: dict[str, Any]) -> None:
    from minirelu.pruning import tables

    surveys = content["surveys"]
    say(
        f"text      ranked on {content['ranked_on']:,} tokens, measured on {content['tokens']:,} "
        f"others\nloss      {statistics.fmean(s['loss'] for s in surveys):.4f} nats, accuracy "
        f"{100 * statistics.fmean(s['accuracy'] for s in surveys):.2f} %"
    )
    for limit in surveys[0]["limits"]:
        say(f"\n{_heading(content, limit)}")
        print_table(tables.of_survey(content, limit))
    say()


def _heading(content: dict[str, Any], limit: float) -> str:
    n = len(content["surveys"])
    over = f"; {n} seeds, with 95 % intervals" if n > 1 else ""
    return (
        "Largest share of units, in percent, that can be removed before the loss rises by "
        f"{100 * limit:g} %{over}"
    )


def _survey_text(content: dict[str, Any]) -> str:
    """Markdown of the tables."""
    from minirelu.pruning import tables
    from minirelu.runs.markdown import table

    parts = []
    for limit in content["surveys"][0]["limits"]:
        head, *body = tables.of_survey(content, limit)
        parts.append(f"{_heading(content, limit)}:\n\n{table(head, body)}")
    return "\n\n".join(parts)


def _smaller(
    folders: tuple[str, ...],
    choice: Choice,
    step: int | None,
    out: str,
    fine_tune: int,
    json_file: str | None,
    page: str | None,
) -> None:
    """Write one smaller run, train it on, and say what it saves."""
    from minirelu.bench.child import peak_of_run
    from minirelu.cli.train import stop_on_ctrl_c, train_with_progress
    from minirelu.pruning import tables
    from minirelu.pruning.curves import quality
    from minirelu.pruning.pruned_run import pruned_run
    from minirelu.pruning.speed import costs
    from minirelu.runs.markdown import table
    from minirelu.runs.prepare import refuse_taken
    from minirelu.runs.run import Run

    if len(folders) > 1:
        raise UserError("--out writes the smaller model of one run; name one")
    parent = Run.open(folders[0])
    refuse_taken(Path(out))
    params = parent.params(step)  # raises where there is none
    at = parent.steps[-1] if step is None else step
    stay = choice.keep(parent, choice.evidence(parent, at))
    run = pruned_run(parent, at, stay, out, fine_tune, choice.by)
    compute, text = parent.settings.train.compute, parent.held_out(choice.tokens)
    qualities = {"before": quality(params, text, parent.config, compute)}
    qualities["pruned"] = quality(run.params(at), text, run.config, compute)
    left = [int(k.sum()) for k in stay]
    say(f"model     {parent.name}, step {at}; pruned by {choice.by}")
    say(
        f"units     {sum(left):,} of {sum(map(len, stay)):,} stay; by layer "
        + ", ".join(f"{n:,}" for n in left)
    )
    if fine_tune:
        with stop_on_ctrl_c() as stopping:
            if not train_with_progress(run, stopping):
                say(f"stopped, all saved; go on with:  {command('train --resume', out)}")
                raise SystemExit(130)
        name = f"{fine_tune} steps later"
        qualities[name] = quality(run.params(), text, run.config, compute)
    found = costs(parent, at, run)
    peaks = [peak_of_run(each.folder) for each in (parent, run)]
    if None not in peaks:
        before, now = (float(peak or 0) / 1e6 for peak in peaks)
        found.append({"what": "MB of memory to train, peak", "before": before, "now": now})
    body = [[n, f"{q.loss:.4f}", f"{100 * q.accuracy:.2f} %"] for n, q in qualities.items()]
    head, cost = ["", "loss", "accuracy"], tables.of_costs(found)
    print_table([head, *body])
    print_table(cost)
    content = {
        **about([run]), "by": choice.by, "scope": choice.scope, "tokens": text[:, 1:].size,
        "widths": left, "fine_tune": fine_tune, "costs": found,
        "quality": {name: q._asdict() for name, q in qualities.items()},
    }  # fmt: skip
    say()
    written = f"{table(head, body)}\n\n{table(cost[0], cost[1:])}"
    write_found(content, None, written, "pruned", json_file, None, page)
    say(f"run       {out}")
    say(f"next      {command('sample', out)}")


def _trial(
    folders: tuple[str, ...], choice: Choice, folder: str, fine_tune: int, workers: int
) -> dict[str, Any]:
    """Train the arms of a trial, and measure what they came to."""
    from minirelu.figures.runs import open_runs
    from minirelu.pruning.trial import pruning_arms, results

    runs = open_runs(folders)
    refuse_unlike(runs)
    arms = pruning_arms(runs, choice, fine_tune, Path(folder))
    say(f"trial     {folder}; arms {', '.join(arms)}; {len(runs)} seeds")
    train_watched(arms, Path(folder), workers)
    return {
        "title": "Pruned and trained on, or small from the start",
        **about(runs), "by": choice.by, "scope": choice.scope, "share": choice.share,
        "within": choice.within, "fine_tune": fine_tune, "tokens": choice.tokens,
        "arms": results(arms, Path(folder), choice.tokens, "pruned"),
    }  # fmt: skip


def train_watched(arms: Any, folder: Path, workers: int) -> None:
    """Train the arms of a trial; a line for each run that is finished."""
    from minirelu.cli.train import stop_on_ctrl_c
    from minirelu.pruning.trial import train_arms
    from minirelu.sweeps.folder import is_finished
    from minirelu.sweeps.running import Watching

    with stop_on_ctrl_c() as stopping:
        train_arms(
            arms, folder, workers,
            Watching(stopping.is_set, on_finished=lambda point: say(f"trained   {point.name}")),
        )  # fmt: skip
    if not all(is_finished(folder, point) for arm in arms.values() for point in arm.points):
        say("stopped; what is trained is saved, and the same command goes on")
        raise SystemExit(130)


def refuse_unlike(runs: list[Run]) -> None:
    """Raise where runs are to count as seeds, and differ in something else, or not at all."""
    seeds = [run.settings.train.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise UserError("two of these runs have the same seed; over seeds, each counts once")
    for run in runs[1:]:
        changed = [
            text
            for text in runs[0].settings.differences(run.settings)
            if not text.startswith(("train.seed:", "train.data_seed:"))
        ]
        if changed:
            raise UserError(
                f"{shown(run.folder)} differs from {shown(runs[0].folder)} not in its seed alone "
                f"({changed[0]}); prune them one by one"
            )
