"""Replay: rewind to before many deaths, change one thing, and see who dies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minirelu.compute import Workspace
from minirelu.death.study import Study
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.errors import UserError, shown
from minirelu.runs.checkpoint import (
    checkpoint_steps,
    load_memory,
    load_params,
    load_slots,
    new_slots,
)
from minirelu.runs.history import read_history
from minirelu.runs.run import Run
from minirelu.sparsity.unit_states import unit_states
from minirelu.training.interventions import parse_interventions
from minirelu.training.schedule import history_steps, learning_rate
from minirelu.training.state import State
from minirelu.training.trainer import train_step

ARMS: tuple[str, ...] = ()  # beside the one that is asked about
PREDICTIONS = {
    "R": "other units die, as many",
    "O": "without the suspect batch the deaths do not happen; without another one they do",
    "D": "the same units die, whichever batch is swapped",
    "G": "as for D",
}
# All that a unit does not own: what the layers below write, and the layer norm that it reads.
UPSTREAM = "embed.*,pos_embed.*,*.attn.*,*.W_out,*.b_out,*.ln1.*,*.ln2.*"
OWN = "*.W_in,*.b_in"


@dataclass
class Window:
    """Steps ``start + 1`` to ``stop`` of a run, in which many units fell silent.

    ``suspect`` : the step with the largest gradient, of those by which half of these units are
    silent; ``innocent`` : the one with the smallest. ``alive``, ``silent`` : L bool arrays (F,),
    at the start and at the end.
    """

    start: int
    stop: int
    suspect: int
    innocent: int
    alive: list[np.ndarray]
    silent: list[np.ndarray]


def run(
    study: Study, arm: str = "base", on_replay: Callable[[int, int], None] = lambda n, of: None
) -> Result:
    """For every seed: rewind, swap the suspect batch and an innocent one, freeze, and compare."""
    runs = study.runs(arm)
    L, swaps = study.base.model.n_layers, study.plan.swaps
    avoided: dict[str, list[list[float]]] = {}  # kind of change: seeds, layers
    others: dict[str, list[list[float]]] = {}
    windows = []
    kinds = _changes(runs[0], Window(0, 1, 1, 1, [], []), swaps)
    of = sum(map(len, kinds.values())) * len(runs)
    for run in runs:
        window = worst_window(run)
        windows.append(window)
        for kind, changes in _changes(run, window, swaps).items():
            now = []
            for settings in changes:
                now.append(replayed(run, window, settings))
                study.on_progress(1, of)
            dead = [w & s for w, s in zip(window.alive, window.silent, strict=True)]
            # shares of those who died, a mean over the replays of this kind
            avoided.setdefault(kind, []).append(
                [_mean([_share(d & ~s[l], d) for s in now]) for l, d in enumerate(dead)]
            )
            others.setdefault(kind, []).append(
                [_mean([_share(window.alive[l] & s[l] & ~d, d) for s in now])
                 for l, d in enumerate(dead)]
            )  # fmt: skip
    rows = []
    for l in range(L):
        for kind in avoided:
            values = [of_seed[l] for of_seed in avoided[kind]]
            row = Row(f"{l}", "window", f"deaths avoided, {kind}", values, "0", NOTHING)
            rows.append(row)
        swapped, innocent = ([s[l] for s in avoided[f"{kind} batch swapped"]] for kind in _BATCHES)
        gain = [a - b for a, b in zip(swapped, innocent, strict=True)]
        rows.append(
            Row(
                f"{l}", "window", "suspect - innocent", gain, "0",
                _says(study, gain, swapped, [s[l] for s in others["suspect batch swapped"]]),
            )
        )  # fmt: skip
    data = {
        "windows": [
            {"run": r.name, **{k: v for k, v in vars(w).items() if isinstance(v, int)},
             "deaths": [int((a & s).sum()) for a, s in zip(w.alive, w.silent, strict=True)]}
            for r, w in zip(runs, windows, strict=True)
        ],
        "avoided": avoided,
        "other units instead": others,
    }  # fmt: skip
    return Result("replay", PREDICTIONS, rows, _conclusion(rows), data, runs)


_BATCHES = ("suspect", "innocent")


def _changes(run: Run, window: Window, swaps: int) -> dict[str, list[dict[str, Any]]]:
    """Settings of each replay, by kind of change."""
    later = run.settings.train.steps  # batches that no step of the run has seen
    steps = dict(zip(_BATCHES, (window.suspect, window.innocent), strict=True))
    changes: dict[str, list[dict[str, Any]]] = {
        f"{which} batch swapped": [
            {"swap_batch": (f"{step}={later + 1 + i}",)} for i in range(swaps)
        ]
        for which, step in steps.items()
    }
    acting = f"first={window.start + 1} last={window.stop}"
    at = f"first={window.suspect} last={window.suspect}"
    largest = learning_rate(window.suspect, run.settings.train)  # of an update of Adam, about
    interventions = {
        "suspect step left out": f"freeze params=* {at}",
        "suspect update clipped": f"unit_clip largest={max(largest, 1e-9):g} {at}",
        "own weights frozen": f"freeze params={OWN} {acting}",
        "upstream frozen": f"freeze params={UPSTREAM} {acting}",
    }
    for kind, text in interventions.items():  # before what the run does itself: the last word
        changes[kind] = [{"intervene": (text, *run.settings.train.intervene)}]
    return changes


def worst_window(run: Run) -> Window:
    """Between two kept optimizer states, the steps in which most units fell silent."""
    kept = checkpoint_steps(run.checkpoints, resumable=True)
    if len(kept) < 2:
        raise UserError(
            f"{shown(run.folder)} keeps {len(kept)} optimizer states, and a replay begins and ends "
            "at one; train with --keep-optimizer-at, as in 32,64,96"
        )
    silent = {step: _silent(run, load_params(run.checkpoints, step, run.config)) for step in kept}
    deaths = {
        (a, b): sum(int((s & ~f).sum()) for f, s in zip(silent[a], silent[b], strict=True))
        for a, b in zip(kept[:-1], kept[1:], strict=True)
    }
    (start, stop), most = max(deaths.items(), key=lambda item: item[1])
    if not most:
        raise UserError(f"{shown(run.folder)}: no unit fell silent between its kept states")
    norms = {r["step"]: r["grad_norm"] for r in run.metrics("train") if start < r["step"] <= stop}
    dead = [s & ~f for f, s in zip(silent[start], silent[stop], strict=True)]
    by = max(_half_silent(run, dead, start, stop), start + 2)  # so that there are two
    in_time = [step for step in norms if step <= by]
    return Window(
        start,
        stop,
        max(in_time, key=norms.__getitem__),
        min(in_time, key=norms.__getitem__),
        [~s for s in silent[start]],
        silent[stop],
    )


def _half_silent(run: Run, dead: list[np.ndarray], start: int, stop: int) -> int:
    """The first record in a window at which half of the units that die in it are silent.

    What comes later did not do it; and a gradient that does it may be the last one before.
    """
    half = sum(int(units.sum()) for units in dead) / 2
    for step in history_steps(run.settings.train):
        if not (start < step < stop and run.history_file(step).is_file()):
            continue
        record = read_history(run.history_file(step), run.config)
        silent = [
            (record[f"tokens_on.{l}"] == 0) & (record[f"confirm_on.{l}"] == 0)
            for l in range(len(dead))
        ]
        if sum(int((d & s).sum()) for d, s in zip(dead, silent, strict=True)) >= half:
            return step
    return stop


def replayed(run: Run, window: Window, changes: dict[str, Any]) -> list[np.ndarray]:
    """Make the steps of a window again with some settings changed; return who is silent then."""
    train = dataclasses.replace(run.settings.train, **changes)
    settings = dataclasses.replace(run.settings, train=train)
    other = Run(run.folder, settings)
    slots = load_slots(run.checkpoints, window.start, new_slots(run.settings))
    params = load_params(run.checkpoints, window.start, run.config)
    state = State(window.start, params, slots, load_memory(run.checkpoints, window.start))
    workspace, interventions = Workspace(), parse_interventions(train.intervene)
    while state.step < window.stop:
        acting = [i.around for i in interventions if i.acts_at(state.step + 1)]
        train_step(other, state, workspace, acting)
    return _silent(run, state.params, workspace)


def _silent(run: Run, params, workspace: Workspace | None = None) -> list[np.ndarray]:
    """Who is on at no token of the probe or of the confirming text, L bool arrays (F,)."""
    train = run.settings.train
    on_probe, on_more = (
        unit_states(params, text, run.config, train.compute, workspace, margins=False)
        for text in (run.probe_tokens, run.confirming_tokens)
    )
    return [(a.tokens_on == 0) & (b.tokens_on == 0) for a, b in zip(on_probe, on_more, strict=True)]


def _share(part: np.ndarray, of: np.ndarray) -> float:
    return float(part.sum() / of.sum()) if of.any() else float("nan")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _says(study: Study, gain: list[float], avoided: list[float], instead: list[float]) -> str:
    """Read the thresholds: outliers, or chance, or what goes on whichever batch is swapped."""
    plan = study.plan
    if np.isfinite(gain).sum() < 2:
        return NOTHING
    saved = np.nanmean(avoided)
    if np.nanmean(gain) >= plan.avoided:
        return "O"
    if saved <= plan.unmoved:
        return "DG"
    # many are spared, and as many others die in their place: who dies is chance
    return "R" if np.nanmean(instead) >= plan.avoided and saved >= plan.avoided else NOTHING


def _conclusion(rows: list[Row]) -> str:
    def mean(kind: str) -> str:
        values = [
            v for row in rows if row.statistic == f"deaths avoided, {kind}" for v in row.values
        ]
        return f"{100 * float(np.nanmean(values)):.0f} %"

    hang = [r.where for r in rows if r.statistic == "suspect - innocent" and r.says == "O"]
    where = f"the deaths of layers {', '.join(hang)} hang" if hang else "no layer's deaths hang"
    return (
        f"Swapping the suspect batch spares {mean('suspect batch swapped')} of those who died, an "
        f"innocent one {mean('innocent batch swapped')}: by the threshold, {where} on it. Freezing "
        f"the units' own weights spares {mean('own weights frozen')}, freezing what is upstream "
        f"{mean('upstream frozen')}."
    )
