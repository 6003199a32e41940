"""The numbers behind the report's page of units: which ones fire, how long, on what."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np

from minirelu.death.history import History
from minirelu.death.summary import lives_of
from minirelu.errors import printable
from minirelu.figures.style import layer_colors
from minirelu.report.specific import as_plain, legend, specific
from minirelu.runs.run import Run, probes_of
from minirelu.sparsity.contexts import Contexts, unit_contexts
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.lives import lives
from minirelu.specificity.variables import read_text

# More units make the page slow to load; of a wider layer the most and the least active are shown.
_MOST_OF_A_LAYER, _MOST_UNITS = 8192, 60_000
_MOST_DRAWN = 32  # probes of a unit's timeline
_MOST_FREQUENT = 3  # tokens of a unit, by firings, beside its characteristic ones
_SCRIPTS = ("timeline.js", "units.js")


def unit_data(
    run: Run,
    on_read: Callable[[int, int], None] | None = None,
    history: History | None = None,
) -> dict[str, Any]:
    """Collect what the page shows of every unit, ready for JSON.

    Parameters
    ----------
    run : Run
        with at least one probe.
    on_read : callable, optional
        see :func:`minirelu.sparsity.contexts.unit_contexts`.
    history : History, optional
        adds margins, deaths and returns.

    Returns
    -------
    dict
        ``notes``, a list of what is missing and why; and unless ``layers`` is empty:

        * of the last probe: ``step``, ``n_tokens``, ``n_sequences``, ``n_batches``,
          ``batch_tokens``, ``sequence_length``;
        * ``drawn``, steps of the timelines;
        * ``vocabulary``, the texts of the tokens that the probe reads or units write, ``probe``,
          indices into it, one sequence after the other, and ``specificity``, see
          :func:`minirelu.report.specific.legend`;
        * ``layers``, each with its ``color``, ``width``, and for the units shown (``units``) at
          how many tokens, sequences and batches each is on (``tokens_on`` ...), its ``timeline``
          (tokens on at the drawn steps), ``first``, ``last`` and ``since`` (steps, -1: none;
          see :func:`minirelu.sparsity.lives.lives`), ``tokens`` (those with most firings: index,
          firings, index, firings ...), ``contexts`` (place in ``probe``, activation, place,
          activation ...) and what :func:`minirelu.report.specific.as_plain` tells;
        * with a history, ``margins_at`` (steps), and of each layer ``margin`` (at these steps) and
          ``deaths`` (steps: last on, first silent, on again or -1, and so on for the next death).

    Raises
    ------
    ValueError
        a file is damaged. One that is missing is told in ``notes``.
    """
    steps = [probe["step"] for probe in probes_of(run)]
    kept = [step for step in steps if run.counts_file(step).is_file()]
    if not kept or kept[-1] != steps[-1]:
        missing = f"There are no per-unit counts of step {steps[-1]} in counts."
        return {"notes": [missing], "layers": []}
    counts = run.counts(steps[-1])
    notes = []
    if lost := sorted({*steps} - {*kept}):
        notes.append(
            f"Per-unit counts are missing for {len(lost)} of {len(steps)} probes (step "
            f"{', '.join(map(str, lost[:5]))}{' ...' if len(lost) > 5 else ''}); lives are told "
            "from the others."
        )
    shown = units_shown(counts)
    widths = run.config.mlp_widths
    if any(len(units) < F for units, F in zip(shown, widths, strict=True)):
        notes.append(
            f"Layers are too wide to show every unit: of those with more than "
            f"{max(map(len, shown)):,}, half of the units shown are the most active ones at the "
            "last probe, half the least active."
        )
    followed = history.steps[history.steps <= steps[-1]].tolist() if history else []
    kept = sorted({*kept, *followed})  # records are of the same tokens as probes
    drawn = [kept[i] for i in _evenly(len(kept), _MOST_DRAWN)]
    layers = _layers(run, counts, shown, kept, drawn, history)
    margins_at = _add_history(history, shown, layers) if history else []
    refers_to: dict[str, Any] = {"vocabulary": [], "probe": []}
    if steps[-1] in run.steps:
        refers_to = _add_contexts(run, steps[-1], shown, layers, on_read)
    else:
        notes.append(
            f"The weights of step {steps[-1]} are not kept, so it cannot be said on which tokens "
            "units fire, and what they write."
        )
    return {
        "notes": notes,
        "step": steps[-1],
        "n_tokens": counts.n_tokens,
        "n_sequences": counts.n_sequences,
        "n_batches": max(1, counts.n_batches),
        "batch_tokens": counts.batch_size_used,
        "sequence_length": counts.sequence_length,
        "probes": len(kept),
        "drawn": drawn,
        "margins_at": margins_at,
        **refers_to,
        "layers": layers,
    }


def units_shown(counts: UnitCounts) -> list[np.ndarray]:
    """Units of each layer that the page has room for, in order, (U,) ints.

    Of a wider layer these are the most active and the least active units, half and half.
    """
    most = min(_MOST_OF_A_LAYER, _MOST_UNITS // counts.config.n_layers)
    shown = []
    for on in counts.tokens_on:
        units = np.argsort(-on, kind="stable")
        if len(units) > most:
            units = np.concatenate([units[: most - most // 2], units[len(units) - most // 2 :]])
        shown.append(np.sort(units))
    return shown


def _evenly(n: int, most: int) -> list[int]:
    """Indices 0 to n - 1, or ``most`` of them, the first and the last among them.

    >>> _evenly(3, 5), _evenly(9, 5)
    ([0, 1, 2], [0, 2, 4, 6, 8])
    """
    return np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()


def _layers(
    run: Run,
    counts: UnitCounts,
    shown: list[np.ndarray],
    kept: list[int],
    drawn: list[int],
    history: History | None,
) -> list[dict[str, Any]]:
    """Return frequencies and lives of the units shown, layer by layer."""
    from matplotlib.colors import to_hex

    on: list[list[np.ndarray]] = [[] for _ in shown]  # for each layer and probe, (U,) bool
    timelines: list[list[np.ndarray]] = [[] for _ in shown]
    records = {step: i for i, step in enumerate(history.steps.tolist())} if history else {}
    for step in kept:
        if history and step in records:
            at_step = [layer.tokens_on[records[step]] for layer in history.layers]
        else:
            at_step = run.counts(step).tokens_on
        for l, units in enumerate(shown):
            tokens_on = at_step[l][units]
            on[l].append(tokens_on > 0)
            if step in drawn:
                timelines[l].append(tokens_on)

    layers = []
    for l, (units, color) in enumerate(zip(shown, layer_colors(len(shown)), strict=True)):
        life = lives(kept, np.stack(on[l]))
        batches_on = counts.batch_share_on()[l][units] * max(1, counts.n_batches)
        layers.append(
            {
                "color": to_hex(color),
                "width": run.config.mlp_widths[l],
                "units": units.tolist(),
                "tokens_on": counts.tokens_on[l][units].tolist(),
                "sequences_on": counts.sequences_on[l][units].tolist(),
                "batches_on": batches_on.round().astype(int).tolist(),
                "timeline": np.stack(timelines[l], axis=1).tolist(),
                "first": life.first_on.tolist(),
                "last": life.last_on.tolist(),
                "since": life.silent_since.tolist(),
            }
        )
    return layers


def _add_history(
    history: History, shown: list[np.ndarray], layers: list[dict[str, Any]]
) -> list[int]:
    """Add ``margin`` and ``deaths`` to the layers; return the steps of the margins."""
    at = _evenly(len(history.steps), _MOST_DRAWN)
    for l, (layer, units) in enumerate(zip(layers, shown, strict=True)):
        margins = history.layers[l].margin[at][:, units].T.tolist()
        layer["margin"] = [[float(f"{m:.2g}") for m in of_unit] for of_unit in margins]
        lives = lives_of(history, l)
        steps = np.stack([lives.step_of(record) for record in lives.deaths[1:]], axis=1)
        first, end = (np.searchsorted(lives.deaths.unit, units, side) for side in ("left", "right"))
        layer["deaths"] = [steps[a:b].ravel().tolist() for a, b in zip(first, end, strict=True)]
    return history.steps[at].tolist()


def _add_contexts(
    run: Run,
    step: int,
    shown: list[np.ndarray],
    layers: list[dict[str, Any]],
    on_read: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Add what units fire on and write to the layers; return what these refer to.

    One pass over the probe does for the strongest contexts and for the patterns of firing, which
    are held as bits.
    """
    params, probe = run.params(step), run.probe_tokens
    text = read_text(probe)
    bits: list[list[np.ndarray]] = [[] for _ in shown]  # of each part read, (n, U/8)
    of_layers = unit_contexts(
        params, probe, run.config, shown, on_read=on_read,
        on_firing=lambda l, on: bits[l].append(np.packbits(on, axis=1)),
    )  # fmt: skip
    found = []
    for l, units in enumerate(shown):
        packed, bits[l] = np.concatenate(bits[l]), []
        on = np.unpackbits(packed, axis=1, count=len(units)).view(bool)
        found.append(specific(params, l, units, on, text))

    ids = np.unique(np.concatenate([probe[:, :-1].ravel(), *(x.tokens_written for x in found)]))
    for layer, of_layer, contexts in zip(layers, found, of_layers, strict=True):
        layer["tokens"], layer["contexts"] = _flat(contexts, ids, text.sequence_length)
        layer |= as_plain(of_layer, np.array(layer["tokens_on"]), text, ids)
    texts = [printable(run.tokenizer.decode([i])) or f"[token {i}]" for i in ids.tolist()]
    places = np.searchsorted(ids, probe[:, :-1]).ravel().tolist()
    return {"vocabulary": texts, "probe": places, "specificity": legend(text)}


def _flat(contexts: Contexts, ids: np.ndarray, T: int) -> tuple[list, list]:
    """For each unit, its tokens as index, firings, ...; its contexts as place, activation, ..."""
    n_tokens = (contexts.tokens[:, :_MOST_FREQUENT] >= 0).sum(axis=1)
    pairs = np.stack([np.searchsorted(ids, contexts.tokens), contexts.firings], axis=-1)
    flat = pairs.reshape(len(pairs), -1).tolist()
    tokens = [pair[: 2 * n] for pair, n in zip(flat, n_tokens, strict=True)]

    places = (contexts.sequences * T + contexts.positions).tolist()
    n_contexts = (contexts.sequences >= 0).sum(axis=1)
    at = [
        [x for place, v in zip(p[:n], values[:n], strict=True) for x in (place, float(f"{v:.3g}"))]
        for p, values, n in zip(places, contexts.values.tolist(), n_contexts, strict=True)
    ]
    return tokens, at


def as_json(data: dict[str, Any]) -> str:
    r"""JSON that can stand inside a ``<script>`` element, whatever text it holds.

    >>> print(as_json({"text": "</script><!--"}))
    {"text":"\u003c/script>\u003c!--"}
    """
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def script() -> tuple[str, str]:
    """Return the page's JavaScript, and its ``sha256-...`` for the Content-Security-Policy."""
    files = resources.files("minirelu.report")
    source = "\n".join((files / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")
    return source, f"sha256-{digest}"
