"""Units seen against tokens read, far beyond a batch: do those that it leaves unused turn up?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.usage_over_training import SHARE_TO_ALL


def unused(content: dict[str, Any]) -> Data:
    """Rarefaction curves of all layers, and what they would be if units fired at random places."""
    results: Sequence[dict[str, Any]] = content["results"]
    n_layers = len(results[0]["layers"])
    lines, random = [], []
    for l in range(n_layers):
        curves = [result["layers"][l]["curve"] for result in results]
        n = min(len(c["tokens"]) for c in curves)
        tokens = curves[0]["tokens"][:n]
        seen = [np.mean([c[name][:n] for c in curves], axis=0) for name in ("seen", "independent")]
        lines.append(line(tokens, seen[0], (l, n_layers), "curve", "seen"))
        lines.append(line(tokens, seen[1], (l, n_layers), "null", "firing at random places"))
        used, by_random = (
            float(np.mean([result["layers"][l][name] for result in results]))
            for name in ("used", "random_batch")
        )
        random.append(line([0], [used], (l, n_layers), "points", "batch of text"))
        random.append(line([1], [by_random], (l, n_layers), "hollow", "batch of random tokens"))
        random.append(line([0, 1], [used, by_random], (l, n_layers), "thin"))
    x = {"label": "tokens read", "scale": "log"}
    ticks = {"label": "", "scale": "linear", "low": -0.4, "high": 1.4,
             "ticks": [[0, "of text"], [1, "of random tokens"]]}  # fmt: skip
    batch, at_random = results[0]["batch"], results[0]["random_batch"]
    panels = [
        panel(lines, x, SHARE_TO_ALL, "units on so far, of the training text"),
        panel(random, ticks, SHARE_TO_ALL, f"used in a batch of {batch['tokens']:,} tokens"),
    ]
    notes = [
        f"The batch of held-out text holds {batch['different']:,} different tokens, that of random "
        f"ones {at_random['different']:,}.",
        f"Means of {len(results)} seeds." if len(results) > 1 else "One seed.",
    ]
    data = figure_data("What a batch leaves unused", panels, [], notes, 2, False)
    return data | {"runs": content["runs"]}
