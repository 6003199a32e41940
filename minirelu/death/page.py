"""A page of Markdown on what studies found: its tables and figures come from their results."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minirelu.death.study import ARMS, Study
from minirelu.death.verdicts import EXPLANATIONS, NOTHING, read_result, result_name
from minirelu.death.wake import GROUPS, read_wake, tally
from minirelu.errors import UserError
from minirelu.intervals import over_seeds
from minirelu.runs.files import explained
from minirelu.runs.markdown import parts_around, replace_part, table
from minirelu.runs.run import Run

RESULTS = "results"  # what its part of the page is called


def write_page(file: Path, studies: Sequence[Study], names: Sequence[str]) -> int:
    """Put the results of studies between the marks of a page; the text around them stays.

    Figures are copied beside the page, into a folder of its name.

    Parameters
    ----------
    file : Path
        Markdown with the :func:`minirelu.runs.markdown.marks` of ``results``.
    studies : sequence of Study
    names : sequence of str
        experiments, in the order in which they are shown.

    Returns
    -------
    int
        how many results were found.

    Raises
    ------
    UserError
        no such page, or it lacks the marks; no study has a result.
    """
    parts_around(file, RESULTS)  # raises where results have no place
    pictures = file.with_suffix("")
    parts, n = [], 0
    for study in studies:
        parts.append(f"## Study `{study.folder.name}`\n\n{_settings(study)}")
        done = [c for c in (read_result(study, name) for name in names) if c is not None]
        if done:
            head, body = matrix(done)
            parts.append(f"Which explanation each experiment speaks for:\n\n{table(head, body)}")
        for name, arm in itertools.product(names, ARMS):
            content = read_result(study, name, arm)
            if content is None:
                continue
            n += 1
            parts.append(experiment_text(content))
            drawn = study.folder / "figures" / f"{result_name(name, arm)}.png"
            if drawn.is_file():
                copy = pictures / f"{study.folder.name}-{drawn.name}"
                with explained("copying the figures"):
                    pictures.mkdir(exist_ok=True)
                    shutil.copyfile(drawn, copy)
                parts.append(f"![{content['question']}]({pictures.name}/{copy.name})")
        if woken := wake_text(study):
            parts.append(woken)
    if not n:
        raise UserError("none of these studies has a result yet; run minirelu death all")
    replace_part(file, RESULTS, "\n\n".join(parts))
    return n


def matrix(contents: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Which explanations each experiment speaks for, by layer: a heading, and a row per layer.

    Letters with the phases at which they were said, where there are several phases; "-" for none.
    """
    layers = dict.fromkeys(
        row["where"] for c in contents for row in c["rows"] if row["where"].isdecimal()
    )
    body = []
    for layer in [*layers, "all"]:
        cells = []
        for content in contents:
            rows = [r for r in content["rows"] if r["where"] == layer]
            phases: dict[str, list[str]] = {}
            for row in rows:
                if row["says"] != NOTHING:
                    phases.setdefault(row["says"], []).append(row["phase"])
            several = len({row["phase"] for row in rows if row["statistic"] in _asked(rows)}) > 1
            said = (
                f"{letters} (at {', '.join(of)})" if several else letters
                for letters, of in phases.items()
            )
            cells.append("; ".join(said) or NOTHING)
        if set(cells) != {NOTHING} or layer != "all":
            body.append([layer, *cells])
    return ["layer", *(content["experiment"] for content in contents)], body


def _asked(rows: list[dict[str, Any]]) -> set[str]:
    """The statistics that a verdict was read from."""
    return {row["statistic"] for row in rows if row["says"] != NOTHING}


def _settings(study: Study) -> str:
    model, train = study.base.model, study.base.train
    return (
        f"{model.n_layers} layers, d_model {model.d_model}, d_mlp {model.d_mlp}, "
        f"{train.batch_size * model.n_ctx} tokens a step, {train.steps} steps, learning rate "
        f"{train.learning_rate:g}; {study.plan.seeds} seeds; a record of every hidden unit every "
        f"{train.history_every} steps, on {train.probe_tokens} held-out tokens, confirmed on "
        f"{train.history_tokens} others. Intervals are of the mean over seeds, 95 %."
    )


def experiment_text(content: dict[str, Any]) -> str:
    """Markdown of one experiment: question, predictions, tables, conclusion."""
    of_arm = "" if content["arm"] == "base" else f", arm `{content['arm']}`"
    lines = [f"### {content['experiment']}{of_arm}", f"*{content['question']}*"]
    lines.append(
        "\n".join(
            f"- **{letter}** ({EXPLANATIONS[letter].partition(':')[0]}): {text}"
            for letter, text in content["predictions"].items()
        )
    )
    lines += tables(content["rows"])
    lines.append(content["conclusion"])
    return "\n\n".join(lines)


def wake_text(study: Study) -> str:
    """What ``minirelu wake`` found in the runs of the arm ``base``; empty where it was not done."""
    runs = [Run.open(file.parents[1]) for file in study.runs_folder.glob("base,*/death/wake.json")]
    found = [read_wake(run) for run in sorted(runs, key=lambda run: run.name)]
    if not found:
        return ""
    body = []
    for l in range(study.base.model.n_layers):
        of_layer = [
            x for w in found for x in w["layers"] if x["layer"] == l and x["units"]["silent"]
        ]
        if of_layer:
            cells = [
                _mean([x["silent"] / x["d_mlp"] for x in of_layer]),
                *(_woken(of_layer, group) for group in GROUPS),
                _mean([x["on_at_random"] / x["silent"] for x in of_layer]),
            ]
            body.append([str(l), *cells])
    head = ["layer", "silent on all held-out text", *(f"woken: {what}" for what in GROUPS.values())]
    last = found[0]
    return (
        f"### wake\n\n*Is it dead, or was it not asked?*\n\n{len(found)} runs, at step "
        f"{last['step']}; silent on {last['tokens']:,} held-out tokens; up to "
        f"{last['budget']['texts']} texts of at most {last['budget']['length']} tokens for each "
        "unit searched for. Certified silent for every input: "
        f"{sum(x['certified_silent'] for w in found for x in w['layers'])} units.\n\n"
        + table([*head, "on in random texts"], body)
    )


def _woken(of_layer: list[dict[str, Any]], group: str) -> str:
    """Share of the units of a group that were woken, with its interval over runs."""
    return _mean(
        [
            tally(x["units"][group]).woken / len(x["units"][group])
            for x in of_layer
            if x["units"].get(group)
        ]
    )


def _mean(shares: list[float]) -> str:
    """'95 % (90 to 100)', over runs."""
    if not shares:
        return NOTHING
    mean, low, high = over_seeds(shares)
    text = f"{100 * mean:.3g} %"
    within = (max(0.0, low), min(1.0, high))
    return text if len(shares) < 2 else f"{text} ({100 * within[0]:.3g} to {100 * within[1]:.3g})"


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """One table for each statistic, layers by phases; those of one phase share a table."""
    phases: dict[str, list[str]] = {}
    for row in rows:
        phases.setdefault(row["statistic"], []).append(row["phase"])
    cells = {(r["statistic"], r["where"], r["phase"]): r for r in rows}
    found, together = [], []
    for statistic, of in phases.items():
        columns = list(dict.fromkeys(of))
        where = list(dict.fromkeys(r["where"] for r in rows if r["statistic"] == statistic))
        if len(columns) == 1:
            together.append((statistic, columns[0], where))
            continue
        null = next(r["null"] for r in rows if r["statistic"] == statistic)
        heading = f"{statistic} (null: {null})" if null else statistic
        found.append(
            table(
                [f"{heading}; layer", *columns],
                [[w, *(_cell(cells.get((statistic, w, p))) for p in columns)] for w in where],
            )
        )
    for layers in dict.fromkeys(tuple(w) for _, _, w in together):
        where = list(layers)
        alike = [(s, p) for s, p, w in together if w == where]
        if len(where) == 1:  # one row: better as a column
            found.append(
                table(["", where[0]], [[s, _cell(cells[s, where[0], p])] for s, p in alike])
            )
            continue
        found.append(
            table(
                ["layer", *(_with_null(s, cells[s, where[0], p]) for s, p in alike)],
                [[w, *(_cell(cells.get((s, w, p))) for s, p in alike)] for w in where],
            )
        )
    return found


def _with_null(statistic: str, row: dict[str, Any]) -> str:
    return f"{statistic} (null: {row['null']})" if row["null"] else statistic


def _cell(row: dict[str, Any] | None) -> str:
    """'1.9 (1.5 to 2.3) **D**'."""
    if row is None or row["mean"] is None:
        return "-"
    text = f"{row['mean']:.3g}"
    if row["low"] is not None:
        text += f" ({row['low']:.3g} to {row['high']:.3g})"
    return text if row["says"] == "-" else f"{text} **{row['says']}**"
