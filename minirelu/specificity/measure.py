"""Specificity of a run: measured on the text it has held out, and kept in its folder."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.errors import UserError, command, printable, shown
from minirelu.runs.files import read_json, write_text
from minirelu.runs.prepare import made_with
from minirelu.runs.run import Run
from minirelu.specificity.firings import read_firings
from minirelu.specificity.information import n_ln_n
from minirelu.specificity.layers import NUMBERS, layer_numbers
from minirelu.specificity.responses import Responses, n_batches, responses
from minirelu.specificity.variables import START, Text, read_text
from minirelu.specificity.writes import writes

FILE = "specificity.json"
_EXAMPLES = 3  # detectors of a layer that are told in full
_SHOWN = 3  # tokens that they raise, and lower


def measure(
    run: Run,
    n_tokens: int,
    step: int | None = None,
    on_read: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure what the units of a run respond to and write.

    Parameters
    ----------
    run : Run
    n_tokens : int
        of held-out text, at most.
    step : int, optional
        without it, the last with weights.
    on_read : callable, optional
        called with the number of sequences just read and of all that will be.

    Returns
    -------
    dict
        ready for JSON: where and on what it was measured, ``layers`` (a dict of
        :data:`~minirelu.specificity.layers.NUMBERS` for each) and ``detectors``: for each layer,
        those with most firings.
    """
    sequences, params = run.held_out(n_tokens), run.params(step)
    at = run.steps[-1] if step is None else step
    text = read_text(sequences)
    layers, detectors, loss = [], [], math.nan
    for firings in read_firings(params, sequences, run.config, on_read=on_read):
        found = responses(firings, text)
        numbers = layer_numbers(found, text, params, firings.layer)
        layers.append({k: None if math.isnan(v) else v for k, v in numbers.items()})
        detectors.append(_examples(run, params, firings.layer, found))
        loss = firings.loss
    batches, each = n_batches(text)
    return {
        "step": at,
        "training_tokens": at * run.settings.train.batch_size * run.config.n_ctx,
        "tokens": text.n_tokens,
        "sequences": text.n_sequences,
        "batches": batches,
        "batch_tokens": each * text.sequence_length,
        "loss": loss,
        "text": _of_text(text),
        "layers": layers,
        "detectors": detectors,
        "made_with": made_with(),
    }


def _of_text(text: Text) -> dict[str, float]:
    """Tokens that occur, and how many they are worth, were all equally frequent."""
    read, N = text.grams[0], text.n_tokens
    entropy = math.log(N) - float(n_ln_n(N)[read.n].sum()) / N
    return {"distinct_tokens": len(read.n), "effective_tokens": math.exp(entropy)}


def _examples(run: Run, params: Any, layer: int, found: Responses) -> list[dict[str, Any]]:
    """Detectors of a layer with most firings: what fires them, and what they write."""
    detectors = np.flatnonzero(found.order > 0)
    chosen = detectors[np.argsort(-found.on[detectors], kind="stable")][:_EXAMPLES]
    written = writes(params, layer, _SHOWN, chosen)

    def words(ids: np.ndarray) -> list[str]:
        return [run.tokenizer.decode([int(i)]) if i != START else "" for i in ids]

    return [
        {
            "unit": int(unit),
            "order": int(found.order[unit]),
            "firings": int(found.on[unit]),
            "triggers": ["".join(words(gram)) for gram in found.triggers[unit] if gram[2] >= 0],
            "raises": words(written.raised[i]),
            "lowers": words(written.lowered[i]),
        }
        for i, unit in enumerate(chosen)
    ]


def store(run: Run, measured: list[dict[str, Any]]) -> Path:
    """Write results to the run's folder; those of other steps stay, if they read as many tokens."""
    file, earlier = run.folder / FILE, []
    with contextlib.suppress(UserError):  # nothing yet, or nothing that can be used
        earlier = read_results(run)
    kept = {r["step"]: r for r in earlier if r["tokens"] == measured[0]["tokens"]}
    kept |= {result["step"]: result for result in measured}
    ordered = [kept[step] for step in sorted(kept)]
    write_text(file, json.dumps({"results": ordered}, indent=1, allow_nan=False))
    return file


def read_results(run: Run) -> list[dict[str, Any]]:
    """Return what was stored, by step.

    Raises
    ------
    UserError
        nothing was, or the file is damaged.
    """
    file = run.folder / FILE
    if not file.is_file():
        raise UserError(
            f"what the units of {shown(run.folder)} respond to is not known yet: "
            f"{command('specificity', run.folder)}"
        )
    content = read_json(file)
    try:
        results = content["results"]
        whole = bool(results) and all(
            isinstance(result["step"], int)
            and isinstance(result["tokens"], int)
            and len(result["layers"]) == run.config.n_layers
            and all(_is_number(layer[name]) for layer in result["layers"] for name in NUMBERS)
            for result in results
        )
    except (KeyError, TypeError):
        whole = False
    if not whole:
        again = command("specificity", run.folder)
        raise UserError(f"{shown(file)} is damaged, or of another version; measure again: {again}")
    return results


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and math.isfinite(value))


def corpus_of(run: Run) -> dict[str, str]:
    """What was read, and its digest."""
    facts = run.corpus
    text = f"{printable(str(facts['corpus']))}, the part held out in training"
    return {"text": text, "sha256": facts["sha256"]}
