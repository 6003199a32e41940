"""The state of every hidden unit at one moment: how often it is on, and how far it is from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minirelu.compute import Workspace, evaluate
from minirelu.config import ModelConfig
from minirelu.model.parameters import Parameters
from minirelu.model.transformer import check_tokens
from minirelu.model.unit_activity import PER_ONE

_PRE_BYTES = 1 << 26  # of pre-activations held at a time


@dataclass
class UnitStates:
    """Of one layer, on one text of S sequences; every array is (F,) but the last.

    ``tokens_on``, ``sequences_on`` : at how many tokens, in how many sequences it was on, int64.
    ``mean_post`` : its mean activation, without signs, float64.
    ``margin`` : its largest pre-activation over the text: with ReLU, at 0 or below it is silent.
    ``mean_input`` : (C,), what the MLP reads, mean over the tokens, float64.
    """

    tokens_on: np.ndarray
    sequences_on: np.ndarray
    mean_post: np.ndarray
    margin: np.ndarray
    mean_input: np.ndarray


def unit_states(
    params: Parameters,
    sequences: np.ndarray,
    config: ModelConfig,
    compute: str = "auto",
    workspace: Workspace | None = None,
    at_once: int = 8,
    margins: bool = True,
) -> list[UnitStates]:
    """Run text through a model, and say where each hidden unit stands.

    Parameters
    ----------
    params : Parameters
    sequences : int ndarray, (S, T + 1)
        the last token of each is a target only, and is not read.
    config : ModelConfig
    compute : {"auto", "dense", "sparse", "reference"}
    workspace : Workspace, optional
    at_once : int
        sequences in memory at a time.
    margins : bool
        False leaves ``margin`` at -inf, and takes half the time.

    Returns
    -------
    list of L UnitStates

    Raises
    ------
    ValueError
        sequences of the wrong shape, type or range.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> state, = unit_states(mr.init_params(config), np.array([[1, 2, 3, 4]]), config)
    >>> np.array_equal(state.margin > 0, state.tokens_on > 0)
    True
    """
    tokens = check_tokens(sequences[:, :-1], config, "tokens")
    targets = check_tokens(sequences[:, 1:], config, "targets")
    workspace = workspace or Workspace()
    states = [
        UnitStates(
            np.zeros(F, np.int64), np.zeros(F, np.int64), np.zeros(F),
            np.full(F, -np.inf, params.dtype), np.zeros(config.d_model),
        )
        for F in config.mlp_widths
    ]  # fmt: skip

    def on_mlp_input(l: int, x: np.ndarray) -> None:
        states[l].mean_input += x.sum(axis=0, dtype=np.float64) / tokens.size
        if margins:
            block = f"blocks.{l}.mlp."
            _raise_margin(states[l].margin, x, params[block + "W_in"], params.get(block + "b_in"))

    for i in range(0, len(tokens), at_once):
        part = slice(i, i + at_once)
        _, activity = evaluate(
            params, tokens[part], targets[part], config, compute, workspace, on_mlp_input
        )
        for state, a in zip(states, activity, strict=True):
            state.tokens_on += a.on.sum(axis=0)
            state.sequences_on += (a.on > 0).sum(axis=0)
            state.mean_post += a.total.sum(axis=0) / (PER_ONE * tokens.size)
    return states


def _raise_margin(margin: np.ndarray, x: np.ndarray, W_in: np.ndarray, b_in: np.ndarray | None):
    """Take in what each unit's pre-activation reaches on the inputs ``x`` (N, C)."""
    at_once = max(1, _PRE_BYTES // (x.itemsize * len(x)))
    for j in range(0, len(W_in), at_once):
        units = slice(j, j + at_once)
        highest = (W_in[units] @ x.T).max(axis=1)  # (units, N), the longer axis last
        if b_in is not None:
            highest += b_in[units]
        np.maximum(margin[units], highest, out=margin[units])
