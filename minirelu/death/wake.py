"""Is a silent unit dead, or was it not asked? Waking the silent units of a run, beside controls.

The controls say what an outcome is worth, by the same search with the same budget:

* ``seldom``: units of the same weights that are silent on the probe, but on somewhere in the
  held-out text, so that a waking text is known to exist. What share of them it wakes is its power.
* ``reachable``: units of the untrained model, each with its bias lowered until it is silent on the
  probe by a little. Nothing has been learned here that could hide a waking text.
* ``unreachable``: the same units with their bias lowered until :mod:`minirelu.death.certified` says
  that no input wakes them. A share above 0 would be a bug.

And beside what the search wakes stands what as many texts of random tokens do.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minirelu.config import ModelConfig
from minirelu.death.certified import Reach, by_rank, certified_silent, on_above
from minirelu.death.search import Budget, Target, fires, search
from minirelu.errors import UserError, command, printable, shown
from minirelu.intervals import share_interval
from minirelu.model.parameters import Parameters, init_params
from minirelu.runs.files import read_json
from minirelu.runs.prepare import made_with
from minirelu.runs.run import Run
from minirelu.sparsity.lives import lives
from minirelu.sparsity.shards import measure_shards
from minirelu.text.batches import consecutive, open_tokens

Array = np.ndarray
FORMAT = 1
# Groups of units that are searched for, and what they are called.
GROUPS = {
    "silent": "silent units",
    "seldom": "silent on the probe only",
    "reachable": "untrained, within reach",
    "unreachable": "untrained, out of reach",
}
_NEAR = 0.1  # of a standard deviation, by which a reachable unit is silent on the probe
_BEYOND = 1e-3  # of its reach, by which an unreachable one is out of it


@dataclass
class Silence:
    """Who is silent at a step of a run.

    ``n_tokens``, ``n_sequences`` : of the held-out text, beside the probe, which is cut from it.
    ``silent`` : of each layer, the units on at no token of either.
    ``seldom`` : those on at no token of the probe, and at one or more of the held-out text.
    ``since`` : (F,) of each layer, the first of the silent probes up to this one; -1: it is on.
    """

    step: int
    params: Parameters
    n_tokens: int
    n_sequences: int
    silent: list[Array]
    seldom: list[Array]
    since: list[Array]


def silence(
    run: Run,
    step: int | None = None,
    tokens: int | None = None,
    on_read: Callable[[int], Any] = lambda n: None,
) -> Silence:
    """Find the units of a run that are silent on its probe and on its held-out text.

    Parameters
    ----------
    run : Run
    step : int, optional
        one with weights; without it, the last.
    tokens : int, optional
        of the held-out text, at most; without it, all.
    on_read : callable
        called with the tokens that have been read, again and again.

    Raises
    ------
    UserError
        no weights or counts of that step, or a text too short for one sequence.
    """
    params = run.params(step)
    step = run.steps[-1] if step is None else step
    file = run.folder / "tokens" / "val.npy"
    sequences = consecutive(open_tokens(file), run.config.n_ctx, tokens)
    if not len(sequences):
        least = f"a sequence of this model is {run.config.n_ctx} tokens"
        raise UserError(
            f"{shown(file)} is too short: {least}"
            if tokens is None
            else f"--tokens: {tokens} is not allowed; {least}"
        )
    steps = [p["step"] for p in run.probes() if p["step"] <= step]
    on_probe = [[on > 0 for on in run.counts(s).tokens_on] for s in steps]
    if step not in steps:
        raise UserError(f"{shown(run.folder)} has no probe at step {step}, only its weights")
    compute = run.settings.train.compute
    counts, _ = measure_shards(
        lambda: (params, run.config), sequences, compute=compute, on_shard=on_read
    )
    found = Silence(step, params, counts.n_tokens, counts.n_sequences, [], [], [])
    for l, on in enumerate(counts.tokens_on):
        by_probe = np.array([layers[l] for layers in on_probe])  # (P, F)
        found.silent.append(np.flatnonzero(~by_probe[-1] & (on == 0)))
        found.seldom.append(np.flatnonzero(~by_probe[-1] & (on > 0)))
        found.since.append(lives(steps, by_probe).silent_since)
    return found


class Plan(NamedTuple):
    """The units to search for in one layer, by group."""

    layer: int
    groups: dict[str, Array]


def plan(run: Run, found: Silence, n_units: int, seed: int, layer: int | None = None) -> list[Plan]:
    """Draw the units: ``n_units`` of each layer's silent ones, an eighth as many of each control.

    Raises
    ------
    UserError
        no such layer; no silent unit.
    """
    L = run.config.n_layers
    if layer is not None and not 0 <= layer < L:
        raise UserError(f"--layer: {layer} is not allowed; there are 0 to {L - 1}")
    wanted = range(L) if layer is None else [layer]
    plans = []
    for l in wanted:
        if not len(found.silent[l]):
            continue
        rng = np.random.default_rng([seed, l])
        controls = max(1, n_units // 8)
        some = _draw(rng, np.arange(run.config.mlp_widths[l]), controls)
        groups = {
            "silent": _draw(rng, found.silent[l], n_units),
            "seldom": _draw(rng, found.seldom[l], controls),
            "reachable": some,
            "unreachable": some,
        }
        plans.append(Plan(l, groups))
    if not plans:
        where = f"layer {layer}" if layer is not None else shown(run.name)
        raise UserError(
            f"nothing to wake: no unit of {where} is silent at step {found.step}, on the probe and "
            f"{found.n_tokens:,} held-out tokens"
        )
    return plans


def _draw(rng: np.random.Generator, units: Array, n: int) -> Array:
    return np.sort(rng.choice(units, min(n, len(units)), replace=False))


def wake(
    run: Run,
    found: Silence,
    plans: Sequence[Plan],
    budget: Budget,
    seed: int = 0,
    on_tried: Callable[[int], Any] = lambda n: None,
) -> dict[str, Any]:
    """Search for texts that wake the planned units; return all there is to know, as plain values.

    Parameters
    ----------
    run : Run
    found : Silence
    plans : sequence of Plan
    budget : Budget
    seed : int
    on_tried : callable
        called with how many texts have been tried, of ``budget.texts`` for each unit of the plans.

    Returns
    -------
    dict
        what ``death/wake.json`` holds.
    """
    config, probe = run.config, run.probe_tokens[:, :-1]
    untrained = init_params(config, run.settings.train.seed)
    reach, untrained_reach = (
        certified_silent(found.params, config),
        certified_silent(untrained, config),
    )
    length = min(budget.length, config.n_ctx)
    layers = []
    for l, groups in plans:
        result: dict[str, list[dict[str, Any]]] = {}
        for group, units in groups.items():
            params = found.params if group in ("silent", "seldom") else untrained
            target = Target(params, config, l, units)
            starts, margins = target.closest(probe, length)
            lowered = np.zeros(len(units))
            if group == "reachable":
                one_std = untrained_reach[l].reach[units] / math.sqrt(config.d_model)
                lowered = margins + _NEAR * one_std
            elif group == "unreachable":
                lowered = out_of_reach(untrained_reach[l], config)[units]
            target = Target(params, config, l, units, lowered)
            result[group] = []
            for i, each in enumerate(search(target, starts, budget, seed, on_tried)):
                # the last word has the model's own forward
                each.woken = each.woken and fires(
                    params, config, l, each.unit, each.text, lowered[i]
                )
                record = {**vars(each), "lowered": float(lowered[i])}
                record["margin_on_probe"] = float(margins[i] - lowered[i])
                record["as_text"] = run.tokenizer.decode(each.text)
                if group == "silent":
                    record["silent_since"] = int(found.since[l][each.unit])
                result[group].append(record)
        nearest = float(np.nanmin(reach[l].ratio, initial=np.inf))
        silent = Target(found.params, config, l, found.silent[l])
        random_texts = np.random.default_rng([seed, l]).integers(
            0, config.d_vocab, (budget.texts, length)
        )
        layers.append(
            {
                "layer": l,
                "d_mlp": config.mlp_widths[l],
                "silent": len(found.silent[l]),
                "seldom": len(found.seldom[l]),
                "on_at_random": int((silent.closest(random_texts, length)[1] > 0).sum()),
                "certified_silent": int(reach[l].silent.sum()),
                "nearest_ratio": nearest if math.isfinite(nearest) else None,
                "units": result,
            }
        )
    each_step = run.settings.train.batch_size * config.n_ctx
    corpus = run.corpus
    return {
        "format": FORMAT,
        "model": run.name,
        "step": found.step,
        "training_tokens": found.step * each_step,
        "config": run.settings.tables(),
        "made_with": made_with(),
        "corpus": {"text": printable(str(corpus["corpus"])), "sha256": corpus["sha256"]},
        "tokens": found.n_tokens,
        "sequences": found.n_sequences,
        "probe_tokens": int(probe.size),
        "on_means": config.activation.on_means,
        "budget": vars(budget) | {"length": length},
        "seed": seed,
        "layers": layers,
    }


def out_of_reach(reach: Reach, config: ModelConfig) -> Array:
    """By how much to lower each unit's bias so that, just about, no input switches it on, (F,)."""
    highest = reach.offset + reach.reach
    if by_rank(config):  # below whatever the others may come to
        return highest + _BEYOND * reach.reach - (reach.offset - reach.reach).min()
    return highest + _BEYOND * reach.reach - on_above(config.activation)


class Tally(NamedTuple):
    """What became of some units: how many were woken, of how many, and its 95 % interval.

    Of those woken, None where there are none: ``effort``, the median of the texts it took;
    ``shortest`` and ``median``, tokens of the texts that were left.
    """

    woken: int
    tried: int
    low: float
    high: float
    effort: float | None
    shortest: int | None
    median: float | None

    @property
    def share(self) -> float:
        """Woken of tried; NaN where none was tried."""
        return self.woken / self.tried if self.tried else math.nan


def tally(units: Sequence[dict[str, Any]]) -> Tally:
    """Count records of units.

    >>> units = [{"woken": True, "text": [3, 1], "tried": 70}, {"woken": False}, {"woken": False}]
    >>> counted = tally(units)
    >>> counted.woken, counted.tried, counted.effort, counted.shortest
    (1, 3, 70, 2)
    """
    woken = [unit for unit in units if unit["woken"]]
    low, high = (float(x) for x in share_interval(len(woken), len(units)))
    if not woken:
        return Tally(0, len(units), low, high, None, None, None)
    lengths = [len(unit["text"]) for unit in woken]
    effort = statistics.median(unit["tried"] for unit in woken)
    return Tally(
        len(woken), len(units), low, high, effort, min(lengths), statistics.median(lengths)
    )


def by_age(units: Sequence[dict[str, Any]], most: int = 4) -> list[tuple[int, int, Tally]]:
    """Split silent units by when their silence began, into groups about equal in size.

    Returns
    -------
    list of (first step, last step, Tally)
        at most ``most``, in order of steps.

    Examples
    --------
    >>> units = [{"woken": False, "silent_since": step} for step in (0, 8, 8, 16)]
    >>> [(first, last, t.tried) for first, last, t in by_age(units, most=2)]
    [(0, 8, 3), (16, 16, 1)]
    """
    steps = sorted({unit["silent_since"] for unit in units})
    groups: list[tuple[int, int, Tally]] = []
    held: list[dict[str, Any]] = []
    for step in steps:
        held += [unit for unit in units if unit["silent_since"] == step]
        if len(held) >= len(units) / most or step == steps[-1]:
            first = min(unit["silent_since"] for unit in held)
            groups.append((first, step, tally(held)))
            held = []
    return groups


def read_wake(run: Run) -> dict[str, Any]:
    """Read what ``minirelu wake`` wrote for a run.

    Raises
    ------
    UserError
        it was not done yet, or the file is damaged or of a later version.
    """
    file = run.folder / "death" / "wake.json"
    if not file.is_file():
        raise UserError(f"{shown(run.folder)} has no waking texts: {command('wake', run.folder)}")
    content = read_json(file)
    try:
        if content["format"] != FORMAT:
            raise UserError(
                f"{shown(file)} is of format {content['format']!r}, this version reads {FORMAT}: "
                f"{command('wake', run.folder)} writes it anew"
            )
        for layer in content["layers"]:
            for group in GROUPS:
                tally(layer["units"][group])
            by_age(layer["units"]["silent"])
    except (TypeError, KeyError, AttributeError):
        raise UserError(
            f"{shown(file)} is damaged: {command('wake', run.folder)} writes it anew"
        ) from None
    return content
