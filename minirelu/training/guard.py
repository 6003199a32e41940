"""Where the first NaN or Inf is, when training meets one."""

from __future__ import annotations

import math

import numpy as np

from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.model.cross_entropy import cross_entropy
from minirelu.model.parameters import Parameters
from minirelu.model.transformer import backward, forward
from minirelu.runs.run import Run
from minirelu.training.schedule import learning_rate
from minirelu.training.state import State


def not_finite(
    run: Run, state: State, sequences: np.ndarray, loss: float, grad_norm: float | None = None
) -> UserError:
    """Return the error that says at which step and in which tensor the first NaN or Inf is."""
    what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {grad_norm}"
    tensor = first_not_finite(state.params, sequences, run.config)
    lr = learning_rate(state.step + 1, run.settings.train)
    kept = run.steps
    at_probe = grad_norm is None
    when = f"probe after step {state.step}" if at_probe else f"step {state.step + 1}"
    return UserError(
        f"{when}: the {what}, first in {tensor}; training stopped, the weights of "
        f"step {kept[-1] if kept else 0} are kept; try a lower --learning-rate (it was {lr:.3g})"
    )


def first_not_finite(params: Parameters, sequences: np.ndarray, config: ModelConfig) -> str:
    """Name the first tensor with a NaN or Inf: weights, activations, then gradients."""
    for name, p in params.items():
        if not np.isfinite(p).all():
            return name
    with np.errstate(all="ignore"):
        for sequence in sequences:  # one at a time: this keeps every activation
            tokens, targets = sequence[None, :-1], sequence[None, 1:]
            logits, acts = forward(params, tokens, config)
            for name, a in {**acts, "logits": logits}.items():
                # scores of later positions are -inf by design
                fine = ~np.isnan(a) if name.endswith("attn_scores") else np.isfinite(a)
                if not fine.all():
                    return name
            grads = backward(params, acts, cross_entropy(logits, targets)[1], config)
            for name, g in grads.items():
                if not np.isfinite(g).all():
                    return f"the gradient of {name}"
    return "the sum of all gradients"
