"""Figures of a study, one for each experiment, drawn from what was written of its result.

``FIGURES_OF_STUDIES[name](content)``, with ``content`` as ``minirelu.death.verdicts.read_result``
returns it. Points and lines are means over seeds, bars and shades their 95 % intervals.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.config import Config
from minirelu.death.experiments.twins import CONTROL, RATIO, STRATIFIED
from minirelu.death.verdicts import result_name
from minirelu.figures.panels import Data, draw_panels, figure_data, line, panel
from minirelu.figures.style import save
from minirelu.runs.files import explained
from minirelu.sparsity.measures import what_on_means

Content = dict[str, Any]  # of a result
SEEDS_SHOWN = 3  # where each seed has a panel of its own
SHARE = {"percent": True, "low": -0.04, "high": 1.04}


def _figure(
    content: Content,
    title: str,
    panels: list[Data],
    notes: Sequence[str] = (),
    columns: int = 2,
    shown: str = "Means over {} seeds, with 95 % intervals.",
) -> Data:
    config = Config.from_tables(content["settings"]).model
    notes = [shown.format(content["plan"]["seeds"]), *notes, what_on_means(config)]
    arm = "" if content["arm"] == "base" else f" ({content['arm']})"
    data = figure_data(f"{title}{arm}", panels, [], [n for n in notes if n], columns, False)
    return data | {"runs": content["runs"]}


def _depth(content: Content) -> int:
    return content["settings"]["model"]["n_layers"]


def _rows(content: Content, statistic: str, **fixed: str) -> list[Content]:
    """Rows of a statistic, such as those ``where="2"``, in their order."""
    return [
        row
        for row in content["rows"]
        if row["statistic"] == statistic and all(row[k] == v for k, v in fixed.items())
    ]


def _mean(
    rows: Sequence[Content], x: Sequence[float], layer: Any, look: str = "points", series: str = ""
) -> Data:
    """Means of rows with their intervals, at the places x."""
    mean, low, high = ([row[k] for row in rows] for k in ("mean", "low", "high"))
    return line(x, mean, layer, look, series, band=(low, high))


def _each(rows: Sequence[Content], x: Sequence[float], layer: Any) -> Data:
    """What each seed has, as small points."""
    at = [a for a, row in zip(x, rows, strict=True) for _ in row["values"]]
    return line(at, [v for row in rows for v in row["values"]], layer, "each seed", "each seed")


def _known(rows: Iterable[Content]) -> list[float]:
    return [v for row in rows for v in row["values"] if v is not None]


def _around(values: Sequence[float], *others: float) -> Data:
    """Limits of an axis with room for these values; intervals of few seeds would need far more."""
    if not values:
        return {}
    low, high = min(*values, *others), max(*values, *others)
    room = 0.25 * (high - low or 1)
    return {"low": low - room, "high": high + room}


def _layers_x(L: int) -> Data:
    ticks = [[l, str(l)] for l in range(L)]
    return {"label": "layer", "scale": "linear", "ticks": ticks, "low": -0.5, "high": L - 0.5}


def _words_x(words: Sequence[str], label: str = "", width: int = 12) -> Data:
    ticks = [[i, textwrap.fill(word, width)] for i, word in enumerate(words)]
    return {
        "label": label, "scale": "linear", "ticks": ticks, "low": -0.5, "high": len(words) - 0.5
    }  # fmt: skip


def _by_layer(content: Content, statistic: str, **fixed: str) -> list[Data]:
    """Every seed, and their mean, of each layer; layers from left to right."""
    L, lines = _depth(content), []
    for l in range(L):
        rows = _rows(content, statistic, where=f"{l}", **fixed)
        lines += [_each(rows, [l - 0.15] * len(rows), (l, L)), _mean(rows, [l], (l, L))]
    return lines


def _flat(ends: Sequence[float], y: float, series: str, look: str = "mark 0") -> Data:
    return line(list(ends), [y, y], None, look, series)


def twins(content: Content) -> Data:
    """Overlap of the silent units of two trainings against its null, over training."""
    L, panels = _depth(content), []
    shown = (
        (RATIO, "run 0", "same initial weights, other batches"),
        (STRATIFIED, "null", "the same, at equal margin at step 0"),
        (CONTROL, "behind", "control: other weights, same batches"),
    )
    y: Data = {"label": "overlap / null"}
    means = [row["mean"] for s, *_ in shown for row in _rows(content, s) if row["mean"]]
    y |= {"low": 0, "high": 1.2 * max([1, *means])}  # of a wide interval the rest is left out
    for l in range(L):
        lines = []
        for statistic, look, series in shown:
            rows = _rows(content, statistic, where=f"{l}")
            at = [int(row["phase"]) for row in rows]
            lines.append(_mean(rows, at, None if look == "behind" else (l, L), look, series))
            if look == "null":  # one shade upon another could not be told apart
                lines[-1] |= {"low": None, "high": None}
        if any(v is not None for v in lines[0]["y"]):
            lines.append(_flat((at[0], at[-1]), 1, "at random"))
            ticks = [[step, str(step)] for step in at]
            x = {"label": "training step", "scale": "log", "ticks": ticks}
            panels.append(panel(lines, x, y, layer=(l, L)))
    title = "Twins: do the same units fall silent?"
    columns = 3 if len(panels) > 4 or len(panels) == 3 else 2
    return _figure(content, title, panels, _left_out(panels, L), columns)


def _left_out(panels: list[Data], L: int) -> list[str]:
    """Say which layers have no panel."""
    missing = [str(l) for l in range(L) if not any(p["layer"] == [l, L] for p in panels)]
    return [f"Nothing to tell in layer{'s' * (len(missing) > 1)} {', '.join(missing)}."] * bool(
        missing
    )


def clock(content: Content) -> Data:
    """Share of units that have died against steps, and sums of the rate and its square."""
    L, data, panels = _depth(content), content["data"], []
    rates: dict[str, float] = data["rates"]
    looks = dict(zip(rates, ("curve", "null", "second null"), strict=True))
    for l in range(L):
        if not any(any(curve) for curve in data["died"][f"{l}"].values()):
            continue
        for name, by_arm in data["clocks"].items():
            lines = [
                line(by_arm[arm], curve, (l, L), looks[arm], f"learning rate {rates[arm]:g}")
                for arm, curve in data["died"][f"{l}"].items()
            ]
            what = panel(lines, {"label": name, "scale": "linear"},
                         {"label": "units that have died", "percent": True, "low": 0},
                         layer=(l, L))  # fmt: skip
            (row,) = _rows(content, f"spread on {name}", where=f"{l}")
            if row["mean"] is not None:
                what["title"] = f"layer {l}: spread {row['mean']:.3f}"
            panels.append(what)
    title = "Clock: where do curves of other rates agree?"
    return _figure(content, title, panels, _left_out(panels, L), 3, "Means over {} seeds.")


def approach(content: Content) -> Data:
    """Margin before death, and what an update does to units that die next, or stay."""
    L, data, panels = _depth(content), content["data"], []
    at = data["steps before death"]
    parts = list(dict.fromkeys(
        row["statistic"].partition(",")[0] for row in content["rows"] if row["phase"] == "an update"
    ))  # fmt: skip
    x = _words_x(parts, "part of an update")
    for l in range(L):
        seeds = data[f"{l}"]
        if not seeds["margins"]:
            continue
        mean, spread = (np.mean(seeds[name], axis=0) for name in ("margins", "spread"))
        band = ((mean - spread).tolist(), (mean + spread).tolist())
        lines = [line(at, of, (l, L), "thin", "each seed") for of in seeds["margins"]]
        lines += [line(at, mean.tolist(), (l, L), "run 0", "all seeds", band),
                  _flat((at[0], 0), 0, "silent below")]  # fmt: skip
        panels.append(
            panel(lines, {"label": "steps before death", "scale": "linear"},
                  {"label": "margin"}, layer=(l, L))
        )  # fmt: skip
        pulls = []
        for who, look, shift in (("dying", "points", -0.1), ("staying", "hollow", 0.1)):
            rows = [_rows(content, f"{part}, {who}, 1e-3", where=f"{l}")[0] for part in parts]
            places = [i + shift for i in range(len(parts))]
            pulls.append(_mean(rows, places, (l, L), look, f"units {who}"))
        known = [v for each in pulls for v in each["y"] if v is not None]
        pulls.append(_flat((-0.5, len(parts) - 0.5), 0, ""))
        y = {"label": "thousandths per update", **_around(known, 0)}
        panels.append(panel(pulls, x, y, f"layer {l}: what moves the margin"))
    notes = ["Shaded, left: the spread of units, one standard deviation.", *_left_out(panels, L)]
    return _figure(content, "Approach: margins before death, and what pulls them", panels, notes)


def burst(content: Content) -> Data:
    """Deaths in each interval between records, above the spikes of the gradient; seed by seed.

    Spikes before the phase that is tested are left out: there, what falls is a trend.
    """
    L, data = _depth(content), content["data"]
    first = data["steps"].index(int(content["rows"][0]["phase"].split()[0]))
    steps, seeds = data["steps"], data["spikes"][:SEEDS_SHOWN]
    middles = [(a + b) / 2 for a, b in zip(steps[:-1], steps[1:], strict=True)]
    x = {"label": "training step", "scale": "even steps"}
    names = [f"seed {run['seed']}" for run in content["runs"][: len(seeds)]]
    deaths, peaks = [], []
    for s, name in enumerate(names):
        lines = [line(middles, data[f"{l}"][s]["deaths"], (l, L), "curve") for l in range(L)]
        deaths.append(
            panel(lines, x, {"label": "deaths in an interval", "low": 0}, f"{name}: deaths")
        )
        spiky = [
            line(middles[first:], seeds[s]["grad_norm"][first:], None, "curve", "gradient"),
            line(middles[first:], seeds[s]["loss"][first:], None, "thin dotted", "loss"),
        ]
        peaks.append(panel(spiky, x, {"label": "spikes, in deviations"}, f"{name}: spikes"))
    title, shown = "Bursts: do deaths come with spikes?", f"Shown: {len(names)} of {{}} seeds."
    note = f"Spikes: from step {steps[first]} on, after the warm-up."
    return _figure(content, title, deaths + peaks, [note], len(names), shown)


def predict(content: Content) -> Data:
    """AUC of sets of features on seeds left out, and the ROC of Adam's second moment."""
    L, panels = _depth(content), []
    detector = "AUC, Adam's second moment as a detector"
    told = [row for row in content["rows"] if row["statistic"] != detector]
    phases = list(dict.fromkeys(row["phase"] for row in told))
    sets = list(dict.fromkeys(row["statistic"] for row in told))
    x = _words_x([name.removeprefix("AUC, ") for name in sets], "known of a unit", 9)
    y = {"label": "AUC", "low": 0.4, "high": 1.02}
    for phase in phases:
        lines = []
        for l in range(L):
            rows = [_rows(content, name, where=f"{l}", phase=phase)[0] for name in sets]
            places = [i + 0.6 * (l - (L - 1) / 2) / L for i in range(len(sets))]
            lines.append(_mean(rows, places, (l, L)))
        lines.append(_flat((-0.5, len(sets) - 0.5), 0.5, "knows nothing"))
        panels.append(panel(lines, x, y, f"dead at the end, told at step {phase}"))
    rocs = []
    for l in range(L):
        for curve in content["data"]["roc of the second moment"][f"{l}"]:
            rocs.append(line(curve["false"], curve["true"], (l, L), "thin"))
    rocs.append(line([0, 1], [0, 1], None, "mark 0", "knows nothing"))
    ticks = [[i / 4, f"{25 * i} %"] for i in range(5)]
    percents = {"label": "others taken for silent", "scale": "linear", "ticks": ticks}
    panels.append(
        panel(rocs, percents, {"label": "silent units found", **SHARE},
              "Adam's second moment, as a detector")
    )  # fmt: skip
    return _figure(content, "Predict: who will be dead?", panels)


def revive(content: Content) -> Data:
    """Who comes back from death, and whether it is more than flicker."""
    L = _depth(content)
    x = _layers_x(L)
    ratio = "returns / flicker"
    rate = "returns per dead unit and step"
    ends = (-0.5, L - 0.5)
    share = {"label": "share", **SHARE}
    flicker = {"label": "ratio", **_around(_known(_rows(content, ratio)), 1)}
    halves = [
        panel(_by_layer(content, rate, phase=phase), x,
              {"label": "per step", **_around(_known(_rows(content, rate)))},
              f"{rate}, {name} half")
        for phase, name in (("1st half", "first"), ("2nd half", "second"))
    ]  # fmt: skip
    panels = [
        panel(_by_layer(content, "share of these that came back"), x, share,
              "of the units that died, came back"),
        panel([*_by_layer(content, ratio), _flat(ends, 1, "flicker alone")], x, flicker, ratio),
        *halves,
    ]  # fmt: skip
    return _figure(content, "Revive: do dead units come back?", panels)


def replay(content: Content) -> Data:
    """Share of deaths that each change avoids, by layer."""
    start = "deaths avoided, "
    kinds = dict.fromkeys(
        row["statistic"] for row in content["rows"] if row["statistic"].startswith(start)
    )
    L = _depth(content)
    y = {"label": "deaths avoided", **SHARE}
    panels = [
        panel(_by_layer(content, kind), _layers_x(L), y, kind.removeprefix(start)) for kind in kinds
    ]
    return _figure(content, "Replay: would the same units have died?", panels, columns=3)


def intervene(content: Content) -> Data:
    """Silent share against loss of every arm."""
    known: dict[str, list[float]] = {"loss": [], "silent": []}
    lines = []
    for i, arm in enumerate(content["data"]["arms"]):
        (silent,) = _rows(content, f"{arm}: silent share")
        (loss,) = _rows(content, f"{arm}: loss, nats per token")
        known["silent"] += _known([silent])
        known["loss"] += _known([loss])
        lines.append(
            line([loss["mean"]], [silent["mean"]], None, f"arm {i}", arm,
                 ([silent["low"]], [silent["high"]]), ([loss["low"]], [loss["high"]]))
        )  # fmt: skip
    x = {"label": "loss, nats per token", "scale": "linear", **_around(known["loss"])}
    y = {"label": "silent units, mean of layers", "percent": True, **_around(known["silent"])}
    title = "Intervene: silent units against loss"
    return _figure(content, title, [panel(lines, x, y)], columns=1)


FIGURES_OF_STUDIES: dict[str, Callable[[Content], Data]] = {
    "twins": twins,
    "clock": clock,
    "burst": burst,
    "approach": approach,
    "predict": predict,
    "revive": revive,
    "replay": replay,
    "intervene": intervene,
}


def save_figure(content: Content, folder: Path) -> Path:
    """Draw a result as ``NAME.png`` and ``.svg`` into a folder; return the first."""
    target = folder / result_name(content["experiment"], content["arm"])
    with explained("writing the figure"):
        folder.mkdir(exist_ok=True)
        return save(draw_panels(FIGURES_OF_STUDIES[content["experiment"]](content)), target)
