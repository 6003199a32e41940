"""The loss, against the yardsticks of the corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minirelu.figures.style import INK, house_style, new_figure, step_axis
from minirelu.figures.usage_over_training import probes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minirelu.training.run import Run


@house_style
def loss(run: Run) -> Figure:
    """Training and validation loss over training, with the unigram and bigram yardsticks."""
    probes, train = probes_of(run), run.metrics("train")
    figure, axes = new_figure("Loss")
    axes.plot(
        [r["step"] for r in train],
        [r["loss"] for r in train],
        color="#b3b3b3",
        linewidth=1,
        label="training batches",
    )
    axes.plot(
        [p["step"] for p in probes],
        [p["val_loss"] for p in probes],
        color="#0072b2",
        marker="o",
        label="probe (validation)",
    )
    for (name, nats), style in zip(
        run.corpus["yardsticks"].items(), (":", "-.", "--"), strict=True
    ):
        axes.axhline(nats, color=INK, linestyle=style, linewidth=1.2, label=f"{name} {nats:.2f}")
    axes.set_ylabel("nats per token")
    last = max(1, probes[-1]["step"])
    step_axis(axes, run.settings.train.batch_size * run.config.n_ctx, last)
    figure.legend(loc="outside right center", frameon=False)
    return figure
