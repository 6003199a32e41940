"""The effects of many settings at once: a panel for each response, a row for each setting."""

from __future__ import annotations

from typing import Any

from minirelu.claims.effects import clear
from minirelu.figures.panels import Data, figure_data, line, panel

_COLUMNS = 3


def effects(content: dict[str, Any]) -> Data:
    """What every setting adds to every response, with 95 % intervals."""
    settings, panels = content["settings"], []
    names = [f"{s['setting']} {s['low'] or 'none'} to {s['high']}" for s in settings]
    # The first setting is at the top; the axis runs upwards.
    at = [len(settings) - 1 - i for i in range(len(settings))]
    low, high = -0.7, len(settings) - 0.3
    y = {"label": "", "ticks": [[i, name] for i, name in zip(at, names, strict=True)],
         "low": low, "high": high}  # fmt: skip
    for i, response in enumerate(content["responses"]):
        scale = 100 if response["percent"] else 1
        unit = "points" if response["percent"] else "nats"
        lines = [line([0, 0], [low, high], None, "mark 0")]
        for is_clear, look in ((True, "arm 0"), (False, "hollow")):
            shown = [
                (scale * e["value"], scale * e["low"], scale * e["high"], row)
                for row, e in zip(at, (s["effects"][i] for s in settings), strict=True)
                if clear(e) == is_clear
            ]
            if shown:
                value, left, right, rows = (list(each) for each in zip(*shown, strict=True))
                series = "interval leaves out 0" if is_clear else "interval holds 0"
                points = line(value, rows, None, look, series, across=(left, right))
                lines.append(points)
        x = {"label": unit, "scale": "linear", "of": response["name"]}  # its own: each has ticks
        panels.append(panel(lines, x, y, response["name"]))
    notes = [
        f"{content['combinations']} combinations of {len(settings)} settings; change from the "
        "setting's first value to its second, others alike; 95 % intervals. Shares of hidden units "
        "on at a token, in a sequence, in a batch; later: mean of the layers after the first; last "
        "- middle: in a batch."
    ]
    data = figure_data("What settings do to the use of layers", panels, [], notes, _COLUMNS, False)
    return data | {"runs": content["runs"]}
