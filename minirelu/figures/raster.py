"""Every unit a row, every record a column: on, silent, or dead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minirelu.death.life_histories import LifeHistories
from minirelu.figures.deaths import every_life, what_died
from minirelu.figures.panels import Data, figure_data, write_notes
from minirelu.figures.style import INK, house_style, layer_labels
from minirelu.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 400  # of a layer: about as many as there are pixels
STATES = {"on": "#e4e4e4", "silent on the probe": "#56b4e9", "dead": INK}  # 0, 1, 2


def raster(runs: Sequence[Run]) -> Data:
    """Collect the state of every unit at every record, sorted by first death, then by return.

    ``z`` of a panel is (rows, records); ``units`` says which unit a row is. Of a layer with more
    than 400 units, every second, third ... of the sorted ones is a row.
    """
    run, history, lives = every_life(runs)
    L, panels = len(lives), []
    for l, (layer, of_layer) in enumerate(zip(history.layers, lives, strict=True)):
        order = by_death(of_layer, layer.silent)
        F, units = len(order), order[even_ranks(len(order), MOST_ROWS)]
        z = layer.silent[:, units].astype(np.int8) + of_layer.dead[:, units]
        panels.append(
            {
                "title": f"{layer_labels(L)[l]}, {F:,} units",
                "layer": [l, L],
                "steps": history.steps.tolist(),
                "units": units.tolist(),
                "z": z.T.tolist(),
            }
        )
    notes = ["From the bottom: units silent from the start, then by first death, then by return.",
             *what_died(lives)]  # fmt: skip
    return figure_data("Life of every hidden unit", panels, runs, notes, columns=min(3, L))


def by_death(lives: LifeHistories, silent: np.ndarray) -> np.ndarray:
    """Order units by their first death, then by when they came back, then by how long silent.

    Those silent at the first record come before all others, those that never died after them.

    Parameters
    ----------
    lives : LifeHistories
    silent : bool ndarray, (P, F)

    Returns
    -------
    int64 ndarray, (F,)

    Examples
    --------
    >>> from minirelu.death.life_histories import life_histories
    >>> on = np.array([[1, 1, 0, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
    >>> by_death(life_histories(range(4), on, on, 64, successive=2), on == 0)
    array([2, 3, 1, 4, 0])
    """
    P, (_, _, high, back) = len(lives.steps), lives.first
    death = np.where(lives.born_silent, 0, np.where(high < 0, P, high))
    back = np.where(back < 0, P, back)
    return np.lexsort((-silent.sum(axis=0), -back, death))


def even_ranks(n: int, most: int) -> np.ndarray:
    """Ranks 0 to n - 1, or ``most`` of them, each in the middle of as many.

    >>> even_ranks(10, 5).tolist()
    [1, 3, 5, 7, 9]
    """
    rows = min(n, most)
    return (np.arange(rows) * n + n // 2) // rows


@house_style
def draw_raster(data: Data) -> Figure:
    """Draw one map for each layer, as wide as training is long."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    panels, columns = data["panels"], data["columns"]
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(9.0, 1.4 + 3.2 * rows), layout="constrained")
    figure.suptitle(data["title"], x=0.01, ha="left", fontsize=12)
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    colors = ListedColormap(list(STATES.values()))
    for i, (axes, what) in enumerate(zip(grid, panels, strict=False)):
        steps = what["steps"]
        half = (steps[-1] - steps[0]) / (2 * max(1, len(steps) - 1))
        axes.imshow(
            what["z"], cmap=colors, vmin=0, vmax=2, aspect="auto", origin="lower",
            interpolation="nearest", extent=(steps[0] - half, steps[-1] + half, 0, 1),
        )  # fmt: skip
        axes.grid(False)
        axes.set_title(what["title"], fontsize=10)
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
        axes.set_xlabel("training step" if i + columns >= len(panels) else "")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supylabel("units of the layer, sorted", fontsize=11)
    patches = [Patch(facecolor=color, edgecolor="#777777", label=name, linewidth=0.5)
               for name, color in STATES.items()]  # fmt: skip
    figure.legend(handles=patches, loc="outside upper right", frameon=False, ncols=3)
    write_notes(figure, data["notes"])
    return figure
