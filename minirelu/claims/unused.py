"""Why does a batch leave units unused: do they wait for other tokens, or have they fallen silent?

A unit that no token of a batch turns on may be specific, on at tokens which that batch lacks; or
silent, on nowhere. The two foretell different things of more text, and of a text in which every
token of the vocabulary is as frequent as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minirelu.errors import UserError
from minirelu.intervals import over_seeds
from minirelu.runs.run import Run
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.measure import measure
from minirelu.sparsity.rarefaction import rarefaction
from minirelu.sparsity.shards import measure_shards
from minirelu.text.batches import consecutive, open_tokens

# For each layer, as a share of its hidden units.
SHARES = {
    "used": "on in the batch",
    "elsewhere": "not, but on elsewhere in the text",
    "random": "not, but on in a text of random tokens",
    "never": "on in none of them",
}


def fates(batch: np.ndarray, text: np.ndarray, random: np.ndarray) -> dict[str, float]:
    """Split a layer's units by where they were on; the shares add up to 1.

    Parameters
    ----------
    batch, text, random : int ndarray, (F,)
        tokens at which each unit was on.

    Examples
    --------
    >>> fates(np.array([3, 0, 0, 0]), np.array([9, 1, 0, 0]), np.array([0, 2, 5, 0]))
    {'used': 0.25, 'elsewhere': 0.25, 'random': 0.25, 'never': 0.25}
    """
    used, in_text, at_random = batch > 0, text > 0, random > 0
    shares = {
        "used": used,
        "elsewhere": ~used & in_text,
        "random": ~used & ~in_text & at_random,
        "never": ~(used | in_text | at_random),
    }
    return {name: float(which.mean()) for name, which in shares.items()}


def unused(
    run: Run,
    n_tokens: int = 1_000_000,
    step: int | None = None,
    on_read: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Follow the units that a batch of held-out text leaves unused to more text.

    Parameters
    ----------
    run : Run
    n_tokens : int
        of the text trained on, at most.
    step : int, optional
        of the weights; without it the last one.
    on_read : callable, optional
        called with the number of tokens read.

    Returns
    -------
    dict
        ``step``; ``read``, tokens of the text; ``batch``, ``random_batch``, ``random``: how many
        tokens they hold and how many different ones; ``layers``: for each its :data:`SHARES`, the
        share
        ``random_batch`` that a batch of random tokens uses, and ``curve``: ``seen`` and
        ``independent`` at ``tokens``, of :func:`minirelu.sparsity.rarefaction.rarefaction`.

    Raises
    ------
    UserError
        the run lacks that step, or ``n_tokens`` are fewer than a batch.
    """
    config, compute = run.config, run.settings.train.compute
    params, T = run.params(step), config.n_ctx  # raises where there are none
    step = run.steps[-1] if step is None else step
    batch = run.probe_tokens  # (S, T + 1)
    size = batch[:, :-1].size
    if n_tokens < size:
        raise UserError(f"tokens: {n_tokens} is not allowed; it must be {size} or more, a batch")
    text = consecutive(open_tokens(run.folder / "tokens" / "train.npy"), T, n_tokens)
    rng = np.random.default_rng(0)
    random = rng.integers(0, config.d_vocab, (8 * len(batch), T + 1))

    def count(sequences: np.ndarray) -> UnitCounts:
        counts, _ = measure(params, sequences, config, compute)
        on_read(counts.n_tokens)
        return counts

    in_batch, in_random = count(batch), count(random)
    alone = count(random[: len(batch)])
    whole, _ = measure_shards(lambda: (params, config), text, compute=compute, on_shard=on_read)
    curve = rarefaction(whole)
    layers = []
    for l in range(config.n_layers):
        shares = fates(in_batch.tokens_on[l], whole.tokens_on[l], in_random.tokens_on[l])
        layers.append({
            **shares,
            "random_batch": float((alone.tokens_on[l] > 0).mean()),
            "curve": {
                "tokens": curve.tokens.tolist(),
                "seen": curve.seen[l].tolist(),
                "independent": curve.independent[l].tolist(),
            },
        })  # fmt: skip
    return {
        "run": run.name,
        "seed": run.settings.train.seed,
        "step": step,
        "read": whole.n_tokens,
        "batch": _held(batch),
        "random_batch": _held(random[: len(batch)]),
        "random": _held(random),
        "layers": layers,
    }


def specific_share(layer: dict[str, float]) -> float:
    """Of the units that the batch leaves unused, the share on elsewhere in the text or at random.

    NaN where it leaves none.
    """
    left = 1 - layer["used"]
    return (layer["elsewhere"] + layer["random"]) / left if left > 0 else float("nan")


def table_of(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """By layer, in % of its units: means over runs, ± half of their 95 % interval."""

    def cell(values: Sequence[float]) -> str:
        if np.isnan(values).all():
            return "-"
        e = over_seeds(values)
        text = f"{100 * e.value:.1f}"
        return f"{text} ± {100 * (e.high - e.value):.1f}" if np.isfinite(e.low) else text

    rows = [["layer", *SHARES.values(), "of the unused, on elsewhere", "used by random tokens"]]
    for l in range(len(results[0]["layers"])):
        layers = [result["layers"][l] for result in results]
        values = [[layer[name] for layer in layers] for name in SHARES]
        values += [[*map(specific_share, layers)], [layer["random_batch"] for layer in layers]]
        rows.append([str(l), *map(cell, values)])
    return rows


def _held(sequences: np.ndarray) -> dict[str, int]:
    inputs = sequences[:, :-1]
    return {"tokens": int(inputs.size), "different": len(np.unique(inputs))}
