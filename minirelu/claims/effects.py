"""What settings do to the use of layers: main effects over a sweep of many settings at two values.

The model is additive: a response is a mean, plus half an effect for each setting at its high value,
less half for each at its low one. Its coefficients come by least squares, over combinations of
settings, each the mean of its seeds. What settings do together is not modelled; it is part of the
residuals, from which the intervals are made, and widens them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from minirelu.claims.verdicts import ROUNDING
from minirelu.errors import UserError, shown
from minirelu.intervals import Estimate
from minirelu.runs.files import explained, read_json, write_text
from minirelu.runs.run import Run, measured
from minirelu.sparsity.measure import measure
from minirelu.sweeps.sweep import Point, Sweep, value_name
from minirelu.text.batches import consecutive, open_tokens

USED_FILE = "used.json"  # in a run's folder


class Response(NamedTuple):
    """What is asked of a run: ``value(run)`` is a number; ``percent`` if it is a share."""

    name: str
    meaning: str
    value: Callable[[Run], float]
    percent: bool = True


def main_effects(levels: np.ndarray, responses: np.ndarray) -> list[Estimate]:
    """Estimate what going from the low to the high value of each setting adds to a response.

    Parameters
    ----------
    levels : ndarray, (n, k)
        +1 where a setting has its high value, -1 where it has its low one.
    responses : ndarray, (n,)

    Returns
    -------
    list of Estimate, (k,)
        effects, with 95 % intervals from Student's t with n - k - 1 degrees of freedom.

    Raises
    ------
    UserError
        fewer than k + 2 combinations, or settings that always change together.

    Examples
    --------
    >>> levels = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    >>> first, second = main_effects(levels, np.array([1.0, 1.1, 3.1, 3.0]))
    >>> print(f"{first.value:.2f} {second.value:.2f} {first.low:.2f} {first.high:.2f}")
    2.00 0.00 0.73 3.27
    """
    from scipy.special import stdtrit

    n, k = levels.shape
    if n < k + 2:
        raise UserError(
            f"{n} combinations are trained, and the effects of {k} settings need {k + 2} or more"
        )
    X = np.column_stack([np.ones(n), levels])  # (n, 1 + k)
    if np.linalg.matrix_rank(X) < 1 + k:
        raise UserError(
            "some settings change together in all runs that are finished, so their effects cannot "
            "be told apart; finish the sweep, or add runs"
        )
    inverse = np.linalg.inv(X.T @ X)
    coefficients = inverse @ X.T @ responses
    residuals = responses - X @ coefficients
    variance = residuals @ residuals / (n - k - 1)
    effects = 2 * coefficients[1:]
    half = stdtrit(n - k - 1, 0.975) * 2 * np.sqrt(variance * np.diag(inverse)[1:])
    limits = np.stack([effects, effects - half, effects + half], axis=1)  # (k, 3)
    limits[np.abs(limits) < ROUNDING] = 0
    return [Estimate(*map(float, each)) for each in limits]


def used_on(run: Run, n_tokens: int) -> list[float]:
    """Share of each layer's hidden units on at some token of the first ones trained on, ``(L,)``.

    What was counted is kept in the run's folder, so that it is not counted again.
    """
    file, step = run.folder / USED_FILE, run.steps[-1]
    asked = {"tokens": n_tokens, "step": step}
    if file.is_file():
        kept = read_json(file)
        if isinstance(kept, dict) and asked == {name: kept.get(name) for name in asked}:
            used = kept.get("used")
            if isinstance(used, list) and len(used) == run.config.n_layers:
                return used
    ids = open_tokens(run.folder / "tokens" / "train.npy")
    sequences = consecutive(ids, run.config.n_ctx, n_tokens)
    counts, _ = measure(run.params(step), sequences, run.config, run.settings.train.compute)
    used = [1 - float((on == 0).mean()) for on in counts.tokens_on]
    with explained("writing what was counted"):
        write_text(file, json.dumps({**asked, "read": counts.n_tokens, "used": used}, indent=1))
    return used


def responses(vary: Collection[str] = (), n_tokens: int | None = None) -> list[Response]:
    """What is asked of every run of a screen; with ``n_tokens``, also of that many tokens.

    What runs that ``vary`` in a setting cannot be compared by is left out: use per sequence where
    their length varies, and the loss where the text or its tokens do.
    """

    def last(run: Run, name: str) -> list[float]:
        values = measured(run.probes()[-1], name, run.config.n_layers)
        return [math.nan if v is None else v for v in values]

    def first(name: str) -> Callable[[Run], float]:
        return lambda run: last(run, name)[0]

    def above_middle(run: Run) -> float:
        use = last(run, "per_batch")
        return use[-1] - float(np.mean(use[1:-1]))

    found = [
        Response("layer 0, token", "layer 0 on at a token", first("per_token")),
        Response("layer 0, sequence", "layer 0 used in a sequence", first("per_sequence")),
        Response("layer 0, batch", "layer 0 used in a batch", first("per_batch")),
    ]
    if n_tokens:
        found.append(Response(
            f"layer 0, {n_tokens:,}", f"layer 0 used on {n_tokens:,} tokens of the training text",
            lambda run: used_on(run, n_tokens)[0],
        ))  # fmt: skip
    found += [
        Response(
            "later, token",
            "the layers after it on at a token, mean",
            lambda run: float(np.mean(last(run, "per_token")[1:])),
        ),
        Response(
            "later, batch",
            "the layers after it used in a batch, mean",
            lambda run: float(np.mean(last(run, "per_batch")[1:])),
        ),
        Response(
            "last - middle", "use per batch of the last layer less that of the middle", above_middle
        ),
    ]
    if n_tokens:
        found.append(Response(
            "later, silent", f"units of the later layers silent on {n_tokens:,} tokens",
            lambda run: 1 - float(np.mean(used_on(run, n_tokens)[1:])),
        ))  # fmt: skip
    if not {"d_vocab", "tokenizer", "corpus", "limit_mb", "val_fraction"} & set(vary):
        found.append(Response("loss", "validation loss, nats", _loss, False))
    return [r for r in found if r.name != "layer 0, sequence" or "n_ctx" not in vary]


def _loss(run: Run) -> float:
    return run.probes()[-1]["val_loss"]


def levels_of(sweep: Sweep, points: Sequence[Point]) -> np.ndarray:  # (n, k)
    """+1 and -1 for the second and the first value of each setting that varies.

    Raises a UserError where a setting has more than two values.
    """
    for field, values in sweep.vary.items():
        if len(values) != 2:
            raise UserError(
                f"effects are told of settings with two values; {field} has {len(values)}. For one "
                "with more: minirelu figure ladder"
            )
    return np.array([
        [2 * values.index(point.values[field]) - 1 for field, values in sweep.vary.items()]
        for point in points
    ])  # fmt: skip


def effects_of(
    sweep: Sweep,
    runs: Sequence[tuple[Point, Run]],
    asked: Sequence[Response],
    on_run: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """Estimate the effect of every setting on every response.

    Parameters
    ----------
    sweep : Sweep
        whose settings have two values each.
    runs : sequence of (Point, Run)
        its finished runs.
    asked : sequence of Response
    on_run : callable, optional
        called after every run that was asked.

    Returns
    -------
    dict
        ``settings``: name, low and high value, and ``effects``, an Estimate for each response;
        ``responses``: name, meaning, lowest and highest; ``values``: each run's; ``combinations``.
    """
    levels = levels_of(sweep, [point for point, _ in runs])
    values = []
    for _, run in runs:
        if run.config.n_layers < 3:
            raise UserError(f"{shown(run.folder)} has no middle layer; effects need 3 or more")
        values.append([response.value(run) for response in asked])
        if np.isnan(values[-1]).any():
            raise UserError(f"{shown(run.folder)} lacks a measure; make the run again")
        on_run()
    table = np.array(values)  # (runs, responses)
    rows = np.unique(levels, axis=0)  # (n, k)
    means = np.stack([table[(levels == row).all(axis=1)].mean(axis=0) for row in rows])
    estimates = [main_effects(rows, column) for column in means.T]
    return {
        "combinations": len(rows),
        "balanced": is_balanced(rows),
        "settings": [
            {
                "setting": field,
                "low": value_name(low),
                "high": value_name(high),
                "effects": [of_settings[i]._asdict() for of_settings in estimates],
            }
            for i, (field, (low, high)) in enumerate(sweep.vary.items())
        ],
        "responses": [
            {"name": r.name, "meaning": r.meaning, "percent": r.percent,
             "lowest": float(column.min()), "highest": float(column.max())}
            for r, column in zip(asked, table.T, strict=True)
        ],
        "values": [
            {"run": point.name, **dict(zip((r.name for r in asked), row, strict=True))}
            for (point, _), row in zip(runs, values, strict=True)
        ],
    }  # fmt: skip


def is_balanced(levels: np.ndarray) -> bool:
    """Whether each setting is as often high as low, also where any other one is high, or low.

    >>> is_balanced(np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]))
    True
    """
    X = np.column_stack([np.ones(len(levels)), levels])
    return bool((X.T @ X == len(X) * np.eye(X.shape[1])).all())


def clear(effect: dict[str, float]) -> bool:
    """Whether an effect's interval leaves out 0."""
    return effect["low"] > 0 or effect["high"] < 0


def table_of(content: dict[str, Any]) -> list[list[str]]:
    """Effects as text: rows of settings, columns of responses; those that are clear have a *."""
    head = ["setting", "from", "to", *(r["name"] for r in content["responses"])]
    rows = [head]
    for setting in content["settings"]:
        cells = []
        for response, effect in zip(content["responses"], setting["effects"], strict=True):
            scale, digits = (100, 1) if response["percent"] else (1, 3)
            half = (effect["high"] - effect["low"]) / 2
            star = "*" if clear(effect) else " "
            cells.append(f"{scale * effect['value']:+.{digits}f} ± {scale * half:.{digits}f}{star}")
        rows.append([setting["setting"], setting["low"] or "none", setting["high"], *cells])
    ends = {
        end: [f"{(100 if r['percent'] else 1) * r[end]:.3g}" for r in content["responses"]]
        for end in ("lowest", "highest")
    }
    return [*rows, *([f"{end} run", "", "", *texts] for end, texts in ends.items())]
