"""What happens at which step: the learning rate, the probes, the weights that are kept."""

from __future__ import annotations

import math

from minirelu.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up from 0, then constant or a half cosine down to ``final_lr`` of the peak.

    Parameters
    ----------
    step : int
        1 for the first update.
    config : TrainConfig

    Examples
    --------
    >>> config = TrainConfig(steps=100, learning_rate=1.0, warmup_steps=10, final_lr=0.1)
    >>> [round(learning_rate(step, config), 3) for step in (1, 10, 55, 100)]
    [0.1, 1.0, 0.55, 0.1]
    """
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
    return config.learning_rate * (config.final_lr + (1 - config.final_lr) * cosine)


def probe_steps(config: TrainConfig) -> list[int]:
    """Steps at which the model is probed: 0, 1, 2, 4, ..., 512, every k after that, the last.

    Dense early on, since that is when most changes (the grid of Pythia, Biderman et al. 2023).

    >>> probe_steps(TrainConfig(steps=630, probe_every=50))
    [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 550, 600, 630]
    """
    doubling = {0, *(1 << i for i in range(10))}
    regular = range(0, config.steps + 1, config.probe_every)
    steps = doubling | {step for step in regular if step > 512} | {config.steps}
    return sorted(step for step in steps if step <= config.steps)


def history_steps(config: TrainConfig) -> range:
    """Steps whose history is written, evenly spaced, so that rates and intervals are those of time.

    >>> list(history_steps(TrainConfig(steps=25, history_every=10)))
    [0, 10, 20]
    """
    every = config.history_every
    return range(0, config.steps + 1, every) if every else range(0)


def kept_steps(steps: list[int], bytes_each: int, budget: float) -> set[int]:
    """Steps whose weights stay on disk: all, or every 2nd, 4th, ... of them if space is short.

    The last step always stays, whatever the budget.

    >>> sorted(kept_steps([0, 1, 2, 4, 8, 16], bytes_each=10, budget=30))
    [1, 4, 16]
    """
    stride = 1
    while stride < len(steps) and len(steps[::-stride]) * bytes_each > budget:
        stride *= 2
    return set(steps[::-stride])
