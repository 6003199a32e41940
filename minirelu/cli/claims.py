"""``minirelu claims``."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from minirelu.cli.found import about, open_finished, print_table, results_options, write_found
from minirelu.cli.options import threads_option, use_threads
from minirelu.cli.say import say
from minirelu.errors import UserError, command, program, shown

if TYPE_CHECKING:
    from minirelu.claims.answers import Answer
    from minirelu.claims.claims import Claim
    from minirelu.config import Config
    from minirelu.death.study import Study
    from minirelu.figures.runs import Group
    from minirelu.runs.run import Run


class Block(NamedTuple):
    """Answers of the same runs: what they are called, what is to be known of them."""

    name: str
    facts: str
    answers: list[Answer]


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(), metavar="RUN...")
@click.option(
    "--study", "study_folder", type=click.Path(), metavar="FOLDER",
    help="Of minirelu death: for the claims on why units turn off.",
)  # fmt: skip
@click.option(
    "--claim", "names", multiple=True, metavar="NAME",
    help="Only this claim, or all whose names begin with it; may be given again.",
)  # fmt: skip
@results_options
@threads_option
def claims(
    folders: tuple[str, ...],
    study_folder: str | None,
    names: tuple[str, ...],
    json_file: str | None,
    figure: str | None,
    page: str | None,
    threads: int | None,
) -> None:
    """Ask of runs what the paper claims, and say what they show.

    For each claim a number with its 95 % interval over seeds, what it would be by its null, and one
    of four verdicts: seen, not seen, the opposite, cannot be said at this size. Thresholds stand in
    minirelu/claims/claims.py. A single seed never gives a verdict.

    Runs that differ in the seed only are asked together; a sweep's folder stands for its finished
    runs. The claims on width and depth take a sweep of widths or depths, those on specificity runs
    after minirelu specificity, those on why units turn off a --study.

    \b
    Examples:
      minirelu claims sweeps/small
      minirelu claims sweeps/fig3 --claim width --figure width.png
      minirelu claims sweeps/small --study studies/small --page my.md#claims
    """
    from minirelu.claims.claims import STUDY, UNTESTED, chosen
    from minirelu.death.study import Study
    from minirelu.figures import claims as drawing
    from minirelu.figures.runs import check_comparable, groups

    use_threads(threads)
    asked = chosen(names)
    study = Study.open(study_folder) if study_folder else None
    runs = open_finished(folders)
    _refuse_unfinished(runs)
    together = groups(runs)
    for group in together:
        check_comparable(group.runs, "per_batch")
    blocks = [
        *_of_groups(asked, together),
        *_of_families(asked, together),
        *_of_study(asked, study),
    ]
    for name in names:
        _refuse_unanswered(name, blocks)
    for block in blocks:
        _print(block, len(blocks) > 1)
    given = folders if len(together) == 1 else ("RUN...",)  # some figures take one group only
    _print_meaning(asked, " ".join(map(shlex.quote, given)), runs[0], study_folder)
    content = {
        **about(runs),
        "study": study and {"settings": study.base.tables(), "plan": vars(study.plan)},
        "blocks": [
            {**block._asdict(), "answers": [a.as_json() for a in block.answers]} for block in blocks
        ],
        "untested": list(UNTESTED),
    }
    say()
    data = drawing.claims(content)
    write_found(
        content, data, _markdown(blocks), "claims", json_file, figure, page, drawing.draw_claims
    )
    if not study and any(claim.of == STUDY for claim in asked):
        say(f"next      {program()} death all, then --study with its folder")
    else:
        say(f"next      {command('figure fig1', folders[0])}")


def _refuse_unfinished(runs: list[Run]) -> None:
    """Claims are on the ends of trainings."""
    from minirelu.figures.width_and_depth import is_finished

    for run in runs:
        if not is_finished(run):
            raise UserError(
                f"{shown(run.folder)} is not finished; claims are on the end of a training: "
                f"{command('train --resume', run.folder)}"
            )


def _of_groups(asked: list[Claim], together: list[Group]) -> list[Block]:
    """Claims that runs answer which differ in the seed only."""
    from tqdm import tqdm

    from minirelu.claims.answers import ask_runs
    from minirelu.claims.claims import RUNS
    from minirelu.claims.tables import seeds
    from minirelu.runs.run import probes_of
    from minirelu.sparsity.measures import what_on_means

    blocks, of_runs = [], [claim for claim in asked if claim.of == RUNS]
    total = len(of_runs) * sum(len(group.runs) for group in together)
    with tqdm(total=total, unit="number", leave=False, disable=None) as bar:
        for group in together:
            first = probes_of(group.runs[0])[-1]
            facts = (
                f"{_shape(group.runs[0].settings)}, {first['tokens']:,} training tokens; "
                f"{seeds(len(group.runs))}; probe of {first['probe_tokens']:,} tokens, in batches "
                f"of {first['batch_tokens']:,}. {what_on_means(group.runs[0].config)}"
            )
            name = group.name if len(together) > 1 else "These runs"
            found = [_ask(c, partial(ask_runs, c, group.runs, bar.update)) for c in of_runs]
            blocks += [Block(name, facts.strip(), found)] * bool(found)
    return blocks


def _shape(settings: Config) -> str:
    model = settings.model
    return (
        f"{model.n_layers} layers, d_model {model.d_model}, d_mlp {model.d_mlp}, vocabulary "
        f"{model.d_vocab}, {settings.train.steps} steps"
    )


def _of_families(asked: list[Claim], together: list[Group]) -> list[Block]:
    """Claims on width and depth: of all groups that differ in nothing else."""
    from minirelu.claims.answers import Answer, ask_family
    from minirelu.claims.claims import DEPTHS, WIDTHS

    blocks = []
    for setting, sweep in ((WIDTHS, "fig3"), (DEPTHS, "fig4")):
        of_setting = [claim for claim in asked if claim.of == setting]
        families = _families(together, setting)
        has = ", ".join(str(v) for v in dict.fromkeys(_value(g, setting) for g in together))
        lacking = (
            f"it needs finished runs of two values of {setting}, alike but for the seed; those "
            f"given have {has}: {program()} sweep {sweep}"
        )
        if of_setting and not families:
            blocks.append(Block(setting, "", [Answer(c, why=lacking) for c in of_setting]))
        for family in families if of_setting else ():
            members = [group.runs for group in family]
            values = ", ".join(str(_value(group, setting)) for group in family)
            found = [_ask(c, partial(ask_family, c, members)) for c in of_setting]
            blocks.append(Block(f"{setting} {values}", "Alike but for that and the seed.", found))
    return blocks


def _value(group: Group, setting: str) -> Any:
    return getattr(group.runs[0].config, setting)


def _families(together: list[Group], setting: str) -> list[list[Group]]:
    """Groups that differ in one setting alone, lowest first; those of one group are left out."""
    from minirelu.figures.runs import settings_that_matter

    alike: dict[str, list[Group]] = {}
    for group in together:
        if isinstance(_value(group, setting), int):
            settings = settings_that_matter(group.runs[0])
            del settings[f"model.{setting}"]
            alike.setdefault(json.dumps(settings), []).append(group)
    several = [family for family in alike.values() if len(family) > 1]
    return [sorted(family, key=lambda g: _value(g, setting)) for family in several]


def _of_study(asked: list[Claim], study: Study | None) -> list[Block]:
    """Claims on why units turn off."""
    from minirelu.claims.answers import ask_study
    from minirelu.claims.claims import STUDY
    from minirelu.claims.probes import Missing

    def ask(claim: Claim) -> Answer:
        if study is None:
            raise Missing(f"it needs a study of neuron death: {program()} death all; then --study")
        return ask_study(claim, study)

    found = [_ask(c, partial(ask, c)) for c in asked if c.of == STUDY]
    name = f"Study {study.folder.name}" if study else "Study"
    facts = f"{_shape(study.base)}; {study.plan.seeds} seeds." if study else ""
    return [Block(name, facts, found)] * bool(found)


def _ask(claim: Claim, ask: Callable[[], Answer]) -> Answer:
    """The answer, or what is missing for one."""
    from minirelu.claims.answers import Answer
    from minirelu.claims.probes import Missing

    try:
        return ask()
    except Missing as e:
        return Answer(claim, why=str(e))


def _refuse_unanswered(name: str, blocks: list[Block]) -> None:
    """What was asked by name, and no runs here can answer."""
    from minirelu.claims.claims import chosen

    answers = [a for block in blocks for a in block.answers if a.claim in chosen([name])]
    if not any(a.readings for a in answers):
        raise UserError(f"{answers[0].claim.name} cannot be answered: {answers[0].why}")


def _print(block: Block, several: bool) -> None:
    from minirelu.claims import tables

    if several:
        say(f"\n== {block.name}")
    _paragraph(block.facts)
    print_table(tables.of_terminal(block.answers))
    unsaid: dict[str, list[str]] = {}
    for a in block.answers:
        if a.reason:
            unsaid.setdefault(a.reason, []).append(a.claim.name)
    for why, names in unsaid.items():
        say(f"cannot be said, {', '.join(names)}: {why}")  # in one piece: it holds a command


def _print_meaning(asked: list[Claim], folders: str, run: Run, study: str | None) -> None:
    """What each number is, and the command that shows it."""
    say("\n== what the claims are, and our numbers")
    one = shlex.quote(shown(run.folder))
    for claim in asked:
        see = claim.shown_by.replace("RUN...", folders) if "..." in claim.shown_by else (
            claim.shown_by.replace("RUN", one)
        )  # fmt: skip
        _paragraph(
            f"{claim.name} ({claim.source}): {claim.says} Number: {claim.number}. Null: "
            f"{claim.null}."
        )
        say(f"    {program()} {see.replace('STUDY', study or 'STUDY')}")


def _paragraph(text: str) -> None:
    if text:
        say("\n".join(textwrap.wrap(text, 100, subsequent_indent="    ", break_on_hyphens=False)))


def _markdown(blocks: list[Block]) -> str:
    """The tables for a page."""
    from minirelu.claims import tables
    from minirelu.claims.claims import UNTESTED
    from minirelu.runs.markdown import table

    parts = []
    for block in blocks:
        head, *body = tables.of_page(block.answers)
        parts.append(f"**{block.name}.** {block.facts}".rstrip() + f"\n\n{table(head, body)}")
    parts.append(f"Too vague to be tested as far as it is known to us: {'; '.join(UNTESTED)}.")
    return "\n\n".join(parts)
