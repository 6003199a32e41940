"""Tables of what units respond to, as rows of text with a heading: for the terminal and a page."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minirelu.specificity.layers import NUMBERS, of_seeds


def of_layers(numbers: dict[str, Any], which: str) -> list[list[str]]:
    """One of the tables: a row for each layer."""
    columns = [number for number in NUMBERS.values() if number.table == which]
    n_layers = len(numbers["layers"][columns[0].name])
    return [
        ["layer", *(number.heading for number in columns)],
        *(
            [str(l), *(cell(numbers["layers"][n.name][l], n.text) for n in columns)]
            for l in range(n_layers)
        ),
    ]


def of_ends(numbers: dict[str, Any]) -> list[list[str]]:
    """Last layer less first layer, as numbers with intervals."""
    rows = [["", "first", "last", "difference", "95 % interval"]]
    for name, ends in numbers["last_minus_first"].items():
        number, layers = NUMBERS[name], numbers["layers"][name]
        if not number.table or ends is None:
            continue
        label = number.heading
        if name.startswith("above_null"):
            label = f"above null, {name.removeprefix('above_null_')}"
        means = [math.nan if e["mean"] is None else e["mean"] for e in (layers[0], layers[-1])]
        difference = math.nan if ends["mean"] is None else ends["mean"]
        interval = "-"
        if ends["low"] is not None:
            interval = f"{number.text(ends['low'])} to {number.text(ends['high'])}"
        rows.append([label, *map(number.text, [*means, difference]), interval])
    return rows


LADDER = (
    "Side by side: units used, and token detectors, of all layers together; the other numbers are "
    "means of the layers. Last - first: how much more of its units the last layer uses in a batch "
    "than the first, in points of percent."
)


def of_ladder(groups: list[dict[str, Any]]) -> list[list[str]]:
    """The groups side by side; of layers, sums and means."""
    columns = {
        "used_per_batch": "used in a batch",
        "silent": "silent",
        "information_token": "information with token",
        "effective_tokens": "effective tokens",
        "few_tokens": "few tokens",
    }
    head = ["", "seeds", "loss", "units used", *columns.values()]
    rows = [[*head, "token detectors", "last - first"]]
    for group in groups:
        layers = group["layers"]
        row = [group["name"], str(len(group["runs"]))]
        row.append(cell(group["loss"], lambda x: f"{x:.3f}"))
        row.append(f"{sum(e['mean'] for e in layers['used_units']):,.0f}")
        for name in columns:
            known = [e["mean"] for e in layers[name] if e["mean"] is not None]
            row.append(NUMBERS[name].text(sum(known) / len(known) if known else math.nan))
        row.append(f"{sum(e['mean'] for e in layers['detectors']):,.0f}")
        ends = group["last_minus_first"]["used_per_batch"]
        row.append("-" if ends is None else cell(ends, NUMBERS["used_per_batch"].text))
        rows.append(row)
    return rows


def of_steps(numbers: dict[str, Any]) -> list[list[str]]:
    """Step by step, the first layer and the last: means over the seeds."""
    columns = {
        "silent": "silent, %",
        "used_per_batch": "used in a batch, %",
        "information_token": "information with token",
        "told_by_token": "told by token, %",
        "effective_tokens": "effective tokens",
        "few_tokens": "few tokens, %",
    }
    rows = [["step", *(f"{text}: first / last" for text in columns.values())]]
    of_runs = [run["results"] for run in numbers["runs"]]
    for at in zip(*of_runs, strict=False):
        cells = []
        for name in columns:
            ends = of_seeds([result["layers"] for result in at], name)
            texts = [NUMBERS[name].text(e.value).removesuffix(" %") for e in (ends[0], ends[-1])]
            cells.append(" / ".join(texts))
        rows.append([str(at[0]["step"]), *cells])
    return rows


def cell(estimate: dict[str, float | None], text: Callable[[float], str]) -> str:
    """A number, with half of its interval where there is one."""
    mean, low = estimate["mean"], estimate["low"]
    if mean is None:
        return "-"
    texts = [text(mean)] + ([] if low is None else [text(mean - low)])
    return " ± ".join(each.removesuffix(" %") for each in texts)  # the text says that it is %
