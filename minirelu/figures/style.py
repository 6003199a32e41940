"""The house style: one look, and the same colour for the same layer in every figure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirelu.training.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.fontsize": 10,
    "savefig.dpi": 150,
    "svg.hashsalt": "minirelu",
}
INK = "#333333"


def layer_colors(n_layers: int) -> list[Any]:
    """Colours from the first layer to the last: viridis, dark to light, without its palest end.

    Viridis rises evenly in lightness, so that the order of layers can be told with any colour
    vision, and in grey.

    >>> len(layer_colors(6))
    6
    """
    import matplotlib as mpl

    viridis = mpl.colormaps["viridis"]
    return [viridis(0.9 * l / max(1, n_layers - 1)) for l in range(n_layers)]


def layer_labels(n_layers: int) -> list[str]:
    """Names for the legend.

    >>> layer_labels(3)
    ['layer 0 (first)', 'layer 1', 'layer 2 (last)']
    """
    ends = {0: " (first)", n_layers - 1: " (last)"} if n_layers > 1 else {}
    return [f"layer {l}{ends.get(l, '')}" for l in range(n_layers)]


def house_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a figure function draw with :data:`STYLE`, leaving matplotlib's settings as they were."""

    @functools.wraps(draw)
    def styled(*arguments: Any, **settings: Any) -> Figure:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return draw(*arguments, **settings)

    return styled


def new_figure(title: str) -> tuple[Figure, Axes]:
    """One empty panel, without pyplot and so without a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    return figure, figure.add_subplot(title=title)


def step_axis(axes: Axes, tokens_per_step: int, last_step: int, log: bool = True) -> None:
    """Steps below, tokens above; logarithmic from step 1 on, with room for step 0."""
    if log:
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        ticks = [0, *(4**i for i in range(16) if 4**i <= last_step)]
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
    axes.set_xlim(0, last_step * (1.05 if log else 1.01))
    axes.set_xlabel("training step")
    top = axes.secondary_xaxis(
        "top", functions=(lambda s: s * tokens_per_step, lambda t: t / tokens_per_step)
    )
    if log:
        top.set_xscale("symlog", linthresh=tokens_per_step, linscale=0.5)
        top.set_xticks(
            [t * tokens_per_step for t in ticks], [_short(t * tokens_per_step) for t in ticks]
        )
        top.minorticks_off()
    else:
        top.xaxis.set_major_formatter(lambda tokens, _: _short(tokens))
    top.set_xlabel("training tokens", fontsize=9)
    top.tick_params(labelsize=8)


def _short(n: float) -> str:
    """1234567 as '1.2M'."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}" if n < 10 * size else f"{n / size:.0f}{unit}"
    return f"{n:.0f}"


def save(figure: Figure, path: Path) -> Path:
    """Write ``path.png`` and ``path.svg``; return the first."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            with replacing(path.with_name(f"{path.name}.{kind}")) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
    return path.with_name(f"{path.name}.png")
