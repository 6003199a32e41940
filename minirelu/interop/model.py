"""Any model that can be measured: a run of this program, or an OPT folder from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirelu.config import ModelConfig
from minirelu.errors import UserError, shown
from minirelu.interop.opt_read import read_opt
from minirelu.model.parameters import Parameters
from minirelu.runs.run import Run
from minirelu.text.tokenizer import Tokenizer


@dataclass
class Model:
    """Weights, and what is needed to read text with them.

    ``run`` is None for an OPT folder; ``facts`` say where the weights are from.
    """

    params: Parameters
    config: ModelConfig
    tokenizer: Tokenizer
    facts: dict[str, Any]
    run: Run | None = None


def open_model(folder: str | Path, step: int | None = None) -> Model:
    """Read the weights of a run (the last ones, or those of a step) or of an OPT folder.

    Raises
    ------
    ValueError
        neither a run nor an OPT folder; no weights of that step; or something is damaged.

    Examples
    --------
    >>> open_model("no/such/folder")
    Traceback (most recent call last):
    minirelu.errors.UserError: no model in no/such/folder: neither config.toml (a run) nor \
config.json (an OPT folder)
    """
    folder = Path(folder)
    if (folder / "config.toml").is_file():
        run = Run.open(folder)
        at = run.steps[-1] if step is None and run.steps else step
        facts = {
            "model": shown(folder.resolve().name),
            "step": at,
            "training_tokens": (at or 0) * run.settings.train.batch_size * run.config.n_ctx,
            "config": run.settings.tables(),
        }
        return Model(run.params(at), run.config, run.tokenizer, facts, run)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"no model in {shown(folder.as_posix())}: neither config.toml (a run) nor config.json "
            "(an OPT folder)"
        )
    if step is not None:
        raise UserError(f"{shown(folder)} is an OPT folder; it has no steps to choose from")
    params, config, tokenizer = read_opt(folder)
    if tokenizer is None:
        raise UserError(f"{shown(folder)} has no tokenizer.json; without it text cannot be read")
    if tokenizer.size > config.d_vocab:
        raise UserError(
            f"{shown(folder)}: its tokenizer has {tokenizer.size} tokens, and its model only "
            f"{config.d_vocab}"
        )
    facts = {"model": shown(folder.resolve().name), "step": None, "training_tokens": None}
    return Model(params, config, tokenizer, facts | {"config": {"model": vars(config)}})


def load_weights(folder: str | Path, step: int | None = None) -> tuple[Parameters, ModelConfig]:
    """Return weights and configuration of :func:`open_model`.

    For workers elsewhere, since a folder's name is quicker to send than weights.
    """
    opened = open_model(folder, step)
    return opened.params, opened.config
