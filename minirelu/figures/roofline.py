"""The roofline (Williams, Waterman & Patterson 2009): each kernel against the machine's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minirelu.figures.style import INK, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minirelu.bench.rates import Rate

# Okabe & Ito's colours, told apart with any colour vision; and a marker each, for print.
GROUPS = {
    "MLP, dense": ("#0072B2", "s"),
    "MLP, sparse": ("#D55E00", "o"),
    "attention": ("#009E73", "^"),
    "element by element": ("#CC79A7", "D"),
}


@house_style
def draw_roofline(rates: list[Rate], matmul_flops: float, copy_bytes: float, title: str) -> Figure:
    """Draw arithmetic a second over arithmetic per byte, with the two roofs.

    Parameters
    ----------
    rates : list of Rate
    matmul_flops, copy_bytes : float
        operations and bytes a second of this machine's matrix product and copy.
    title : str
    """
    figure, axes = new_figure(title)
    figure.set_size_inches(9.6, 4.8)
    x = [r.flops / r.bytes for r in rates]
    y = [r.flops / r.seconds / 1e9 for r in rates]
    low, high = min(x) / 2, max(x) * 3
    ridge, roof = matmul_flops / copy_bytes, matmul_flops / 1e9
    axes.plot([low, ridge, high], [low * copy_bytes / 1e9, roof, roof], color=INK, linewidth=1.4)
    product = f"matrix product: {roof:.0f} GFLOP/s"
    axes.text(high / 1.1, roof * 1.5, product, fontsize=9, color=INK, ha="right")
    copy = f"copy: {copy_bytes / 1e9:.0f} GB/s"
    axes.text(ridge / 1.4, roof / 1.25, copy, fontsize=9, color=INK, ha="right")
    for i, r in enumerate(rates):
        color, marker = GROUPS[r.group]
        axes.plot(
            x[i], y[i], marker, color=color, markersize=13, linestyle="none",
            label=f"{i + 1}  {r.name}",
        )  # fmt: skip
        # points that lie on each other share one number
        near = [j for j in range(len(x)) if abs(x[j] / x[i] - 1) + abs(y[j] / y[i] - 1) < 0.12]
        if near[-1] == i:
            axes.annotate(
                ",".join(str(j + 1) for j in near), (x[i], y[i]),
                ha="center", va="center_baseline", fontsize=8, color="white",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min(y) / 2, roof * 2)
    axes.set_yticks([t for t in (5, 10, 20, 50, 100, 200, 500, 1000) if min(y) / 2 < t < roof * 2])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("arithmetic intensity: FLOP per byte that must move")
    axes.set_ylabel("GFLOP/s")
    figure.legend(loc="outside right center", frameon=False, markerscale=0.6, labelspacing=0.7)
    return figure
