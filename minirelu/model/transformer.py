"""The whole model: a pre-LN decoder, equal to OPT. Forward, backward, and both at once, fast.

::

    x = W_E[tokens] + W_pos                    embedding
    for each block:
        x = x + attention(layernorm(x))        hook_attn_out
        x = x + relu_mlp(layernorm(x))         hook_mlp_out
    logits = layernorm(x) @ W_E.T              tied unembedding
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.model.activations import backward_names, check_names
from minirelu.model.attention import attention_backward, attention_forward
from minirelu.model.cross_entropy import cross_entropy
from minirelu.model.embedding import (
    embedding_backward,
    embedding_forward,
    unembedding_backward,
    unembedding_forward,
)
from minirelu.model.layernorm import layernorm_backward, layernorm_forward
from minirelu.model.mlp import mlp_backward, mlp_forward
from minirelu.model.parameters import Parameters, as_parameters

if TYPE_CHECKING:
    from minirelu.model.workspace import Workspace

Array = np.ndarray
MLP = ("W_in", "b_in", "W_out", "b_out")
ATTENTION = tuple(f"{kind}_{name}" for name in "QKVO" for kind in "Wb")


def forward(
    params: Mapping[str, Array],
    tokens: Array,
    config: ModelConfig,
    keep: Iterable[str] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Run the model, and hand out every activation that is asked for as a plain array.

    Parameters
    ----------
    params : mapping of ndarray
        as made by :func:`minirelu.init_params`; their dtype is that of every result.
    tokens : int ndarray, (B, T)
        T at most ``config.n_ctx``.
    config : ModelConfig
    keep : names, optional
        the activations wanted, see ``minirelu.model.activations``; None: all of them.

    Returns
    -------
    logits : ndarray, (B, T, V)
    acts : dict of ndarray
        the activations named by ``keep``.

    Raises
    ------
    ValueError
        tokens of the wrong shape, type or range; an unknown name in ``keep``.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> params = mr.init_params(config)
    >>> logits, acts = mr.forward(params, np.array([[1, 2, 3]]), config)
    >>> logits.shape, acts["blocks.0.mlp.hook_post"].shape
    ((1, 3, 10), (1, 3, 8))
    """
    tokens = check_tokens(tokens, config, "tokens")
    wanted = check_names(keep, config)
    acts: dict[str, Array] = {}

    def record(name: str, value: Array) -> Array:
        if name in wanted:
            acts[name] = value
        return value

    def norm(name: str, x: Array) -> Array:
        w, b = params[name + ".w"], params.get(name + ".b")
        y, (_, scale) = layernorm_forward(x, w, b, config.ln_eps)
        record(name + ".hook_scale", scale)
        return record(name + ".hook_normalized", y)

    record("tokens", tokens)
    embed, pos_embed = embedding_forward(tokens, params["embed.W_E"], params["pos_embed.W_pos"])
    x = record("hook_embed", embed) + record("hook_pos_embed", pos_embed)  # (B, T, C)

    for l in range(config.n_layers):
        block = f"blocks.{l}."
        record(block + "hook_resid_pre", x)
        normalized = norm(block + "ln1", x)
        attn_out, saved = attention_forward(normalized, attention_params(params, l), config.n_heads)
        for name, value in saved.items():
            record(f"{block}attn.hook_{name}", value)
        del saved, value  # what is not kept goes now, not when the next block is done
        x = record(block + "hook_resid_mid", x + record(block + "hook_attn_out", attn_out))

        normalized = norm(block + "ln2", x)
        B, T, C = x.shape
        mlp_out, (_, pre, post) = mlp_forward(
            normalized.reshape(B * T, C), *mlp_params(params, l)
        )
        record(block + "mlp.hook_pre", pre.reshape(B, T, -1))
        record(block + "mlp.hook_post", post.reshape(B, T, -1))
        del pre, post
        mlp_out = mlp_out.reshape(B, T, C)
        x = record(block + "hook_resid_post", x + record(block + "hook_mlp_out", mlp_out))

    normalized = norm("ln_final", x)
    logits = unembedding_forward(normalized, params["embed.W_E"])  # (B, T, V)
    return logits, acts


def backward(
    params: Mapping[str, Array],
    acts: Mapping[str, Array],
    dlogits: Array,
    config: ModelConfig,
) -> Parameters:
    """Propagate the gradient of the logits to every parameter: the forward, read upwards.

    Parameters
    ----------
    params : mapping of ndarray
    acts : mapping of ndarray
        from :func:`forward`, kept with ``keep=None``.
    dlogits : ndarray, (B, T, V)
    config : ModelConfig

    Returns
    -------
    grads : Parameters
        same names and shapes as ``params``.

    Raises
    ------
    ValueError
        naming an activation that the forward was told not to keep.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> params = mr.init_params(config)
    >>> logits, acts = mr.forward(params, np.array([[1, 2, 3]]), config)
    >>> loss, dlogits = mr.cross_entropy(logits, np.array([[2, 3, 4]]))
    >>> grads = mr.backward(params, acts, dlogits, config)
    >>> grads["blocks.0.mlp.W_in"].shape
    (8, 4)
    """
    for name in sorted(backward_names(config).difference(acts)):
        raise UserError(f"backward needs the activation {name!r}; call forward with keep=None")
    grads = Parameters(config, dlogits.dtype)

    def store(name: str, value: Array) -> None:
        if name in grads:  # a model without biases has no place for their gradients
            grads[name][...] = value

    def norm_backward(name: str, dy: Array, x: Array) -> Array:
        saved = (x, acts[name + ".hook_scale"])
        dx, dw, db = layernorm_backward(dy, params[name + ".w"], saved)
        store(name + ".w", dw)
        store(name + ".b", db)
        return dx

    # logits = layernorm(x) @ W_E.T
    dx, dW_E = unembedding_backward(dlogits, acts["ln_final.hook_normalized"], params["embed.W_E"])
    store("embed.W_E", dW_E)
    last = f"blocks.{config.n_layers - 1}.hook_resid_post"
    dx = norm_backward("ln_final", dx, acts[last])  # (B, T, C)

    for l in reversed(range(config.n_layers)):
        block = f"blocks.{l}."
        # x = x + relu_mlp(layernorm(x)): the gradient goes both ways and meets again
        B, T, C = dx.shape
        x, post = acts[block + "ln2.hook_normalized"], acts[block + "mlp.hook_post"]
        W_in, _, W_out, _ = mlp_params(params, l)
        dnormalized, *mlp_grads = mlp_backward(
            dx.reshape(B * T, C), W_in, W_out, (x.reshape(B * T, C), None, post.reshape(B * T, -1))
        )
        for name, value in zip(MLP, mlp_grads, strict=True):
            store(f"{block}mlp.{name}", value)
        dnormalized = dnormalized.reshape(B, T, C)
        dx = dx + norm_backward(block + "ln2", dnormalized, acts[block + "hook_resid_mid"])

        # x = x + attention(layernorm(x))
        attn_saved = {n: acts[f"{block}attn.hook_{n}"] for n in ("q", "k", "v", "pattern", "z")}
        dnormalized, attn_grads = attention_backward(
            dx, acts[block + "ln1.hook_normalized"], attention_params(params, l), attn_saved
        )
        for name, value in attn_grads.items():
            store(f"{block}attn.{name}", value)
        dx = dx + norm_backward(block + "ln1", dnormalized, acts[block + "hook_resid_pre"])

    # x = W_E[tokens] + W_pos
    embedding_backward(dx, acts["tokens"], grads["embed.W_E"], grads["pos_embed.W_pos"])
    return grads


def loss_and_grads(
    params: Mapping[str, Array],
    tokens: Array,
    targets: Array,
    config: ModelConfig,
    mlp: str = "auto",
    workspace: Workspace | None = None,
    grads: Parameters | None = None,
) -> tuple[float, Parameters]:
    """Forward, loss and backward: the step that training repeats, made of the fast kernels.

    Parameters
    ----------
    params : mapping of ndarray
    tokens, targets : int ndarray, (B, T) each
    config : ModelConfig
    mlp : {"auto", "dense", "sparse", "numpy"}
        how the MLPs are computed: with all units, or with those that are on; ``auto`` takes for
        each layer what is faster. ``numpy`` is the whole step by the reference,
        :func:`minirelu.forward` and :func:`minirelu.backward`.
    workspace : Workspace, optional
        memory to use again from call to call; without it each call takes its own.
    grads : Parameters, optional
        written to, and returned; without it they are new.

    Returns
    -------
    loss : float
        mean over the tokens, in nats.
    grads : Parameters

    Raises
    ------
    ValueError
        tokens or targets of the wrong shape, type or range; another ``mlp``.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> params = mr.init_params(config)
    >>> loss, grads = mr.loss_and_grads(params, np.array([[1, 2]]), np.array([[2, 3]]), config)
    >>> print(f"{loss:.1f}")  # an untrained model guesses: ln 10
    2.3
    """
    tokens = check_tokens(tokens, config, "tokens")
    targets = check_tokens(targets, config, "targets")
    if tokens.shape != targets.shape:
        raise UserError(f"targets: shape {targets.shape}; the tokens have {tokens.shape}")
    if grads is not None and (grads.config != config or grads.dtype != params["embed.W_E"].dtype):
        raise UserError("grads: of another model or dtype than the parameters")
    if mlp == "numpy":
        logits, acts = forward(params, tokens, config, keep=backward_names(config))
        loss, dlogits = cross_entropy(logits, targets)
        computed = backward(params, acts, dlogits, config)
        if grads is None:
            return loss, computed
        grads.flat[:] = computed.flat
        return loss, grads

    # imported, and so compiled, only when they are asked for
    from minirelu.kernels import transformer as kernels
    from minirelu.model.workspace import Workspace

    if not isinstance(params, Parameters):  # kernels are compiled for one layout
        params = as_parameters(params, config)
    if grads is None:
        grads = Parameters(config, params.dtype)
    if workspace is None:
        workspace = Workspace()
    return kernels.loss_and_grads(params, tokens, targets, config, mlp, workspace, grads), grads


def check_tokens(tokens: Array, config: ModelConfig, what: str) -> Array:
    """Return tokens as an int array (B, T), or raise saying what is wrong with them."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.size == 0 or not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(
            f"{what}: shape {tokens.shape}, {tokens.dtype}; must be whole numbers, (B, T)"
        )
    if tokens.shape[1] > config.n_ctx:
        raise UserError(f"{what}: {tokens.shape[1]} positions; the model has n_ctx {config.n_ctx}")
    if tokens.min() < 0 or tokens.max() >= config.d_vocab:
        raise UserError(
            f"{what}: values from {tokens.min()} to {tokens.max()}; "
            f"must be from 0 to {config.d_vocab - 1}"
        )
    return tokens


def attention_params(params: Mapping[str, Array], l: int) -> dict[str, Array | None]:
    """Attention's tensors of layer l by their last name; None for a bias the model has not."""
    return {name: params.get(f"blocks.{l}.attn.{name}") for name in ATTENTION}


def mlp_params(params: Mapping[str, Array], l: int) -> list[Array | None]:
    """``W_in, b_in, W_out, b_out`` of layer l; None for a bias the model has not."""
    return [params.get(f"blocks.{l}.mlp.{name}") for name in MLP]
