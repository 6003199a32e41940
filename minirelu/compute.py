"""Who computes: the reference (``model/``, ``training/optimizers.py``) or the Numba kernels.

This is the one place where that is decided, by the setting ``compute``:

* ``reference``: every number comes from the plain NumPy of ``model/`` and ``training/``; Numba is
  not even imported. So training uses a change there as it stands.
* ``dense``, ``sparse``: the kernels, visiting all hidden units, or only those that are on.
* ``auto``: the kernels, by the faster route for each layer and step; the reference for an
  activation function that lacks kernels.

Both give the same numbers, to rounding; ``minirelu check`` holds them to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from minirelu.config import COMPUTE, ModelConfig, TrainConfig
from minirelu.errors import UserError, nearest, one_line
from minirelu.kernels.available import COMPILED, SPARSE
from minirelu.kernels.workspace import Workspace
from minirelu.model.activations import backward_names, mlp_names
from minirelu.model.cross_entropy import cross_entropy, token_losses
from minirelu.model.mlp import l1_penalty
from minirelu.model.parameters import Parameters, as_parameters
from minirelu.model.transformer import backward, check_tokens, forward
from minirelu.model.unit_activity import UnitActivity, unit_activity
from minirelu.threads import most_threads
from minirelu.training import optimizers

Array = np.ndarray


def by_reference(compute: str, config: ModelConfig) -> bool:
    """Whether the reference computes, for this setting and this model.

    Raises
    ------
    UserError
        there is no such setting, or it asks for kernels that the activation function lacks.

    Examples
    --------
    >>> config = ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> by_reference("auto", config), by_reference("reference", config)
    (False, True)
    """
    if compute not in COMPUTE:
        raise UserError(
            f"compute: {one_line(repr(compute))} is not allowed; it must be one of "
            f"{', '.join(COMPUTE)}{nearest(str(compute), COMPUTE)}"
        )
    name = config.act_fn
    if compute == "sparse" and not config.activation.has_zeros:
        raise UserError(
            f"compute: sparse leaves out what is exactly 0, and {name} has no zeros; choose auto, "
            f"dense or reference, or act_fn {', '.join(SPARSE)}"
        )
    if compute in ("dense", "sparse") and name not in COMPILED:
        raise UserError(
            f"compute: {compute} needs kernels, and there are none for act_fn {name}; choose auto "
            "or reference"
        )
    return compute == "reference" or name not in COMPILED


def loss_and_grads(
    params: Mapping[str, Array],
    tokens: Array,
    targets: Array,
    config: ModelConfig,
    compute: str = "auto",
    workspace: Workspace | None = None,
    grads: Parameters | None = None,
    l1: float = 0.0,
) -> tuple[float, Parameters]:
    """Forward, loss and backward: the step that training repeats.

    Parameters
    ----------
    params : mapping of ndarray
    tokens, targets : int ndarray, (B, T) each
    config : ModelConfig
    compute : {"auto", "dense", "sparse", "reference"}
        who computes; see ``minirelu.compute``.
    workspace : Workspace, optional
        memory to use again from call to call; without it each call takes its own.
    grads : Parameters, optional
        written to, and returned; without it they are new.
    l1 : float
        weight of the penalty on every layer's activations, see
        :func:`minirelu.model.mlp.l1_penalty`.

    Returns
    -------
    loss : float
        mean over the tokens, in nats, and the penalty; ``grads`` is its gradient.
    grads : Parameters

    Raises
    ------
    ValueError
        tokens or targets of the wrong shape, type or range; another ``compute``.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> params = mr.init_params(config)
    >>> loss, grads = mr.loss_and_grads(params, np.array([[1, 2]]), np.array([[2, 3]]), config)
    >>> print(f"{loss:.1f}")  # an untrained model guesses: ln 10
    2.3
    """
    if grads is None:
        grads = Parameters(config, params["embed.W_E"].dtype)
    nats, penalty = step(params, tokens, targets, config, compute, workspace, grads, l1)
    return nats + penalty, grads


def step(
    params: Mapping[str, Array],
    tokens: Array,
    targets: Array,
    config: ModelConfig,
    compute: str,
    workspace: Workspace | None,
    grads: Parameters,
    l1: float = 0.0,
) -> tuple[float, float]:
    """Like :func:`loss_and_grads`, but with cross-entropy and penalty apart, in nats."""
    tokens = check_tokens(tokens, config, "tokens")
    targets = check_tokens(targets, config, "targets")
    if tokens.shape != targets.shape:
        raise UserError(f"targets: shape {targets.shape}; the tokens have {tokens.shape}")
    if grads.config != config or grads.dtype != params["embed.W_E"].dtype:
        raise UserError("grads: of another model or dtype than the parameters")
    if by_reference(compute, config):
        logits, acts = forward(params, tokens, config, keep=backward_names(config))
        loss, dlogits = cross_entropy(logits, targets)
        grads.flat[:] = backward(params, acts, dlogits, config, l1=l1).flat
        penalty = sum(l1_penalty(acts[name], l1) for name in mlp_names(config)) if l1 else 0.0
        return loss, penalty

    from minirelu.kernels import transformer as kernels

    if not isinstance(params, Parameters):  # kernels are compiled for one layout
        params = as_parameters(params, config)
    ws = workspace or Workspace()
    return kernels.loss_and_grads(params, tokens, targets, config, compute, ws, grads, l1)


def evaluate(
    params: Parameters,
    tokens: Array,
    targets: Array,
    config: ModelConfig,
    compute: str = "auto",
    workspace: Workspace | None = None,
    on_mlp_input: Callable[[int, Array], None] | None = None,
    on_logits: Callable[[Array], None] | None = None,
) -> tuple[Array, list[UnitActivity]]:
    """Run the model without a backward, and watch its hidden units.

    Parameters
    ----------
    params : Parameters
    tokens, targets : int ndarray, (B, T) each
    config : ModelConfig
    compute : {"auto", "dense", "sparse", "reference"}
    workspace : Workspace, optional
    on_mlp_input : callable, optional
        called with each layer's number and what its MLP reads, (N, C): to be looked at during the
        call, since it is overwritten afterwards.
    on_logits : callable, optional
        called with the logits, (B, T, V).

    Returns
    -------
    nats : ndarray, (B, T)
        each token's loss.
    activity : list of L UnitActivity
        what each layer's units did in each sequence.
    """
    if by_reference(compute, config):
        inputs = [f"blocks.{l}.ln2.hook_normalized" for l in range(config.n_layers)]
        wanted = inputs if on_mlp_input else []
        logits, acts = forward(params, tokens, config, keep=[*mlp_names(config), *wanted])
        if on_mlp_input:
            for l, name in enumerate(inputs):
                on_mlp_input(l, acts[name].reshape(-1, config.d_model))
        off = config.activation.off
        activity = [unit_activity(acts[name], off) for name in mlp_names(config)]
        if on_logits:
            on_logits(logits)
        nats, _ = token_losses(logits, targets)
        return nats.reshape(targets.shape), activity

    from minirelu.kernels import transformer as kernels

    ws = workspace or Workspace()
    return kernels.evaluate(params, tokens, targets, config, compute, ws, on_mlp_input, on_logits)


def global_norm(grads: Parameters, compute: str = "auto") -> float:
    """Euclidean length of the gradient, summed in float64; NaN or Inf if any number in it is."""
    if by_reference(compute, grads.config):
        return optimizers.global_norm(grads.flat)
    from minirelu.kernels import adam

    return adam.global_norm(grads.flat)


def update(
    params: Parameters,
    grads: Parameters,
    slots: Mapping[str, Parameters],
    step: int,
    lr: float,
    settings: TrainConfig,
    grad_norm: float,
) -> None:
    """Clip the gradient to ``settings.clip_norm``, and let the optimizer take one step.

    Matrices decay, vectors (gains and biases) don't.

    Parameters
    ----------
    params, grads : Parameters
        ``params`` change in place.
    slots : mapping of Parameters
        what the optimizer remembers, by name; changed in place.
    step : int
        1 for the first.
    lr : float
    settings : TrainConfig
    grad_norm : float
        global norm of ``grads``.
    """
    optimizer = optimizers.OPTIMIZERS[settings.optimizer]
    take_step = optimizer.step
    if settings.optimizer == "adamw" and not by_reference(settings.compute, params.config):
        from minirelu.kernels.adam import adam_step as take_step
    chosen = {argument: getattr(settings, name) for argument, name in optimizer.settings.items()}
    too_long = settings.clip_norm and grad_norm > settings.clip_norm
    g_scale = settings.clip_norm / grad_norm if too_long else 1.0
    n = params.n_matrix
    for part, decay in ((slice(None, n), settings.weight_decay), (slice(n, None), 0.0)):
        take_step(
            params.flat[part],
            grads.flat[part],
            *(slot.flat[part] for slot in slots.values()),
            step=step,
            lr=lr,
            decay=decay,
            g_scale=g_scale,
            **chosen,
        )


def refuse_disagreement(config: ModelConfig) -> None:
    """Raise if kernels and reference differ in what this model needs.

    Of an activation function without kernels: if its gradient is not that of its forward.
    """
    if by_reference("auto", config):
        from minirelu.check import gradients

        gradients.refuse_wrong_gradient(config.act_fn)
    else:
        from minirelu.check import kernels

        kernels.refuse_disagreement(config)


def step_memory(config: ModelConfig, N: int, compute: str = "auto") -> dict[str, int]:
    """Numbers that a step over N tokens holds at its peak beside the parameters, by purpose.

    Hidden units are counted as if all were on.
    """
    C, V, L, widest = config.d_model, config.d_vocab, config.n_layers, max(config.mlp_widths)
    # of each layer: both normalised inputs, q, k, v, z, and the residual stream twice
    per_token = 8 * C * L
    if by_reference(compute, config):
        pattern = 2 * config.n_heads * config.n_ctx * L
        return {
            "hidden units": N * (2 * sum(config.mlp_widths) + 4 * widest),
            "other activations": N * (per_token + pattern),
            "logits": 4 * N * V,
            "scratch": 8 * N * C,
        }
    from minirelu.kernels.attention import scratch_size
    from minirelu.kernels.compiling import BLOCK, TILE, n_blocks

    blocks = n_blocks(N)
    each_thread = max(scratch_size(config.n_ctx, config.d_head), TILE * (BLOCK + C))
    topk = config.act_fn == "topk"
    if topk:  # all pre-activations of a block, among which the largest are found
        each_thread = max(each_thread, widest * BLOCK)
    has_slopes = config.act_fn == "gelu" or (topk and compute == "dense")  # beside activations
    return {
        "hidden units": (2 if has_slopes else 1) * blocks * BLOCK * sum(config.mlp_widths),
        "other activations": N * per_token,
        "logits": blocks * BLOCK * V,
        # gradients of activations, and parts of those of the weights, added up at the end
        "scratch": 8 * N * C + 4 * blocks * C * C + blocks * widest + most_threads() * each_thread,
    }
