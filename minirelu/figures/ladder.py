"""A ladder: how use, silence, loss and specificity of each layer follow a setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minirelu.errors import UserError
from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.price import silent_share
from minirelu.figures.runs import (
    Group,
    check_comparable,
    differing,
    groups,
    mean_and_range,
    name_of,
)
from minirelu.figures.usage_over_training import SHARE, SHARE_TO_ALL, batch_tokens
from minirelu.figures.width_and_depth import is_finished
from minirelu.runs.run import Run, measured, probes_of
from minirelu.specificity.measure import FILE, read_results
from minirelu.sweeps.sweep import value_name

_LONGEST = 12  # characters of a tick on an axis without numbers
_APART = 0.08  # layers at one tick of an axis without numbers
Value = Callable[[Run, int], "float | None"]  # of a run's layer


def ladder(runs: Sequence[Run]) -> Data:
    """Loss, and by layer what is used, how many units that is, what is silent: ends of runs.

    Where all runs were measured by ``minirelu specificity`` on as much text, also what firing tells
    of the token.

    Raises
    ------
    UserError
        the runs differ in no setting but the seed, in several, or in the number of layers.
    """
    done = [run for run in runs if is_finished(run)]
    vary = differing(done) if done else []
    section, _, setting = vary[0].partition(".") if len(vary) == 1 else ("", "", "")
    if setting in ("", "n_layers"):
        raise UserError(
            "ladder shows finished runs of equal depth that differ in one setting and the seed "
            f"only; the {len(done)} finished ones given differ in {', '.join(vary) or 'none'}"
        )
    together = groups(done)
    values = [getattr(getattr(group.runs[0].settings, section), setting) for group in together]
    ordered = all(type(value) in (int, float) for value in values)
    numbers = ordered and min(values) > 0  # those that a logarithmic axis has a place for
    if ordered:
        order = sorted(range(len(values)), key=values.__getitem__)
        together, values = [together[i] for i in order], [values[i] for i in order]
    at = values if numbers else list(range(len(values)))
    texts = [_text(value) for value in values]
    long = max(map(len, texts)) > _LONGEST  # then letters stand for them
    ticks = [chr(ord("a") + i) for i in range(len(texts))] if long else texts
    x: Data = {"label": setting, "scale": "log" if numbers else "linear"}
    x["ticks"] = [list(tick) for tick in zip(at, ticks, strict=True)]
    x |= {} if numbers else {"low": -0.5, "high": len(at) - 0.5}
    L = done[0].config.n_layers

    def points(value: Value, l: int, layer: tuple[int, int] | None) -> list[Data]:
        """Means, with bars from the lowest seed to the highest; joined if the axis has numbers."""
        spread = [mean_and_range([value(run, l) for run in group.runs]) for group in together]
        mean, low, high = (list(each) for each in zip(*spread, strict=True))
        if numbers:
            return [
                line(at, mean, layer, "curve"),
                line(at, mean, layer, "points", "", (low, high)),
            ]
        aside = _APART * (l - (L - 1) / 2) if layer else 0
        return [line([i + aside for i in at], mean, layer, "points", "", (low, high))]

    def by_layer(value: Value) -> list[Data]:
        return [each for l in range(L) for each in points(value, l, (l, L))]

    def used_units(run: Run, l: int) -> float | None:
        share = _last("per_batch")(run, l)
        return None if share is None else share * run.config.mlp_widths[l]

    batch = f"used in a batch of {batch_tokens(done)} tokens"
    units: Data = {"label": "units"} | ({"scale": "log"} if setting == "d_mlp" else {"low": 0})
    loss = points(lambda run, _: probes_of(run)[-1]["val_loss"], 0, None)
    panels = [
        panel(loss, x, {"label": "nats per token"}, "validation loss"),
        panel(by_layer(_last("per_token")), x, SHARE, "on at a token"),
        panel(by_layer(_last("per_batch")), x, SHARE_TO_ALL, batch),
        panel(by_layer(used_units), x, units, "the same, as a number of units"),
        panel(by_layer(silent_share), x, SHARE_TO_ALL, "on at no token of the probe"),
    ]
    notes = check_comparable(done, "per_batch")
    if setting != "n_ctx":  # sequences of other lengths are other things
        in_sequence = panel(by_layer(_last("per_sequence")), x, SHARE_TO_ALL, "used in a sequence")
        panels.insert(2, in_sequence)
    if long:
        notes.append("; ".join(f"{a}: {text}" for a, text in zip(ticks, texts, strict=True)) + ".")
    if read := _text_read(done):
        found = {run.folder: read_results(run)[-1]["layers"] for run in done}
        tells = by_layer(lambda run, l: found[run.folder][l]["information_token"])
        chance = by_layer(lambda run, l: found[run.folder][l]["null_token"])
        for each in chance:
            each |= {"look": "null" if each["look"] == "curve" else "hollow", "low": None}
            each |= {
                "high": None,
                "series": "firings at random places" * (each["look"] == "hollow"),
            }
        y = {"label": "nats", "low": 0}
        panels.append(panel([*tells, *chance], x, y, "information with the token, median unit"))
        notes.append(f"Information: on {read:,} held-out tokens, of the units that are on.")
    else:
        notes.append("What firing tells of the token is shown after minirelu specificity.")
    if sizes := sorted({len(group.runs) for group in together} - {1}):
        notes.append(f"Means of {' or '.join(map(str, sizes))} seeds; bars: lowest to highest.")
    if left_out := [name_of(run) for run in runs if run not in done]:
        notes.append(f"Left out, not finished: {', '.join(left_out)}.")
    step = done[0].settings.train.steps
    data = figure_data(f"What {setting} changes, at step {step}", panels, done, notes, 2)
    return data | {"table": _table(setting, texts, together, L)}


def _text(value: Any) -> str:
    """A setting's value, short.

    >>> _text(0.001), _text((64, 32)), _text(()), _text(("freeze params=embed.*",))
    ('0.001', '64-32', 'none', 'freeze params=embed.*')
    """
    if isinstance(value, tuple) and not all(isinstance(part, int) for part in value):
        return "; ".join(value)
    return f"{value:g}" if type(value) is float else value_name(value) or "none"


def _table(setting: str, values: list[str], together: Sequence[Group], L: int) -> list[list[str]]:
    """What matters most as text, shares in %: means over seeds, and lowest to highest."""

    def cell(value: Value, l: int, scale: float = 100, digits: int = 1) -> list[str]:
        cells = []
        for group in together:
            spread = mean_and_range([value(run, l) for run in group.runs])
            mean, low, high = ("-" if v is None else f"{scale * v:.{digits}f}" for v in spread)
            cells.append(mean if len(group.runs) == 1 else f"{mean} ({low} to {high})")
        return cells

    columns = {
        setting: values,
        "loss": cell(lambda run, _: probes_of(run)[-1]["val_loss"], 0, 1, 3),
        "layer 0, token": cell(_last("per_token"), 0),
        "layer 0, sequence": cell(_last("per_sequence"), 0),
        **{f"layer {l}, batch": cell(_last("per_batch"), l) for l in range(L)},
    }
    return [[*columns], *map(list, zip(*columns.values(), strict=True))]


def _last(measure: str) -> Value:
    """What the last probe measured."""
    return lambda run, l: measured(probes_of(run)[-1], measure, run.config.n_layers)[l]


def _text_read(runs: Sequence[Run]) -> int | None:
    """Tokens on which specificity was measured, if that is so at the last step of all runs."""
    if not all((run.folder / FILE).is_file() for run in runs):
        return None
    last = [read_results(run)[-1] for run in runs]
    at_end = all(r["step"] == probes_of(run)[-1]["step"] for r, run in zip(last, runs, strict=True))
    read = {result["tokens"] for result in last}
    return read.pop() if at_end and len(read) == 1 else None
