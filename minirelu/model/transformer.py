"""The whole model: a pre-LN decoder, equal to OPT, forward and backward. This is the reference.

::

    x = W_E[tokens] + W_pos                    embedding
    for each block:
        x = x + attention(layernorm(x))        hook_attn_out
        x = x + mlp(layernorm(x))              hook_mlp_out
    logits = layernorm(x) @ W_E.T              tied unembedding
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.model.activations import activation_names, backward_names, check_names
from minirelu.model.attention import Past, attention_backward, attention_forward
from minirelu.model.embedding import (
    embedding_backward,
    embedding_forward,
    unembedding_backward,
    unembedding_forward,
)
from minirelu.model.hooks import (
    BEFORE,
    Edit,
    Hook,
    as_it_is,
    before_edit,
    check_edits,
    edited,
    edited_backward,
    inside,
)
from minirelu.model.layernorm import layernorm_backward, layernorm_forward
from minirelu.model.mlp import mlp_backward, mlp_forward
from minirelu.model.parameters import Parameters

Array = np.ndarray
MLP = ("W_in", "b_in", "W_out", "b_out")
ATTENTION = tuple(f"{kind}_{name}" for name in "QKVO" for kind in "Wb")


def forward(
    params: Mapping[str, Array],
    tokens: Array,
    config: ModelConfig,
    keep: Iterable[str] | None = None,
    edit: Mapping[str, Edit] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Run the model, hand out every activation that is asked for, and replace those named.

    Parameters
    ----------
    params : mapping of ndarray
        as made by :func:`minirelu.init_params`; their dtype is that of every result.
    tokens : int ndarray, (B, T)
        T at most ``config.n_ctx``.
    config : ModelConfig
    keep : names, optional
        the activations wanted, see ``minirelu.model.activations``; None: all of them.
    edit : mapping, optional
        name of an activation to a function from it to what is used in its place, an array of the
        same shape and dtype. For :func:`backward` the new value is a constant: no gradient goes
        through the edit. Give a pair instead, ``(function, backward)``, with
        ``backward(d, before)`` from the gradient with respect to the function's result, and its
        input, to the gradient with respect to its input.

    Returns
    -------
    logits : ndarray, (B, T, V)
    acts : dict of ndarray
        the activations named by ``keep``; of an edited one what was used, and, with
        ``" before edit"`` after its name, what it was before.

    Raises
    ------
    ValueError
        tokens of the wrong shape, type or range; an unknown name in ``keep`` or ``edit``; an edit
        that returns another shape or dtype.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> params, tokens = mr.init_params(config), np.array([[1, 2, 3]])
    >>> logits, acts = mr.forward(params, tokens, config)
    >>> logits.shape, acts["blocks.0.mlp.hook_post"].shape
    ((1, 3, 10), (1, 3, 8))

    Silence the hidden units of layer 0, and nothing else:

    >>> _, acts = mr.forward(params, tokens, config, edit={"blocks.0.mlp.hook_post": np.zeros_like})
    >>> bool(acts["blocks.0.hook_mlp_out"].any())  # b_out is 0 in a new model
    False
    """
    tokens = check_tokens(tokens, config, "tokens")
    wanted = check_names(keep, config)
    edits = check_edits(edit, activation_names(config))
    acts: dict[str, Array] = {}

    def hook(name: str, value: Array) -> Array:
        if name in edits:
            if name in wanted:
                acts[name + BEFORE] = value
            value = edited(edits[name], name, value)
        if name in wanted:
            acts[name] = value
        return value

    used = hook("tokens", tokens)
    tokens = used if used is tokens else check_tokens(used, config, "edit of 'tokens'")
    embed, pos_embed = embedding_forward(tokens, params["embed.W_E"], params["pos_embed.W_pos"])
    x = hook("hook_embed", embed) + hook("hook_pos_embed", pos_embed)  # (B, T, C)
    for l in range(config.n_layers):
        x = block_forward(x, params, l, config, hook)
    normalized = norm(params, "ln_final", x, config, hook)
    logits = unembedding_forward(normalized, params["embed.W_E"])  # (B, T, V)
    return logits, acts


def backward(
    params: Mapping[str, Array],
    acts: Mapping[str, Array],
    dlogits: Array,
    config: ModelConfig,
    edit: Mapping[str, Edit] | None = None,
    l1: float = 0.0,
) -> Parameters:
    """Propagate the gradient of the logits to every parameter: the forward, read upwards.

    Parameters
    ----------
    params : mapping of ndarray
    acts : mapping of ndarray
        from :func:`forward`, kept with ``keep=None``.
    dlogits : ndarray, (B, T, V)
    config : ModelConfig
    edit : mapping, optional
        the same as the forward's.
    l1 : float
        adds the gradient of the penalty on every layer's ``hook_post``, see
        :func:`minirelu.model.mlp.l1_penalty`.

    Returns
    -------
    grads : Parameters
        same names and shapes as ``params``.

    Raises
    ------
    ValueError
        naming an activation that the forward was told not to keep, or that was edited and is not
        in ``edit``.

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
    edits = check_edits(edit, activation_names(config))
    for name in sorted(backward_names(config, edits).difference(acts)):
        raise UserError(f"backward needs the activation {name!r}; call forward with keep=None")
    for name in acts:
        if name.endswith(BEFORE) and name.removesuffix(BEFORE) not in edits:
            raise UserError(
                f"the activation {name.removesuffix(BEFORE)!r} was edited in the forward; give "
                "backward the same edit="
            )
    grads = Parameters(config, dlogits.dtype)

    def hook(name: str, d: Array) -> Array:
        return edited_backward(edits[name], name, d, acts[name + BEFORE]) if name in edits else d

    # logits = layernorm(x) @ W_E.T
    dx, dW_E = unembedding_backward(dlogits, acts["ln_final.hook_normalized"], params["embed.W_E"])
    grads.store("embed.W_E", dW_E)
    last = f"blocks.{config.n_layers - 1}.hook_resid_post"
    dx = norm_backward(dx, params, "ln_final", acts, acts[last], grads, hook)  # (B, T, C)
    for l in reversed(range(config.n_layers)):
        dx = block_backward(dx, params, l, config, acts, grads, hook, l1)
    # x = W_E[tokens] + W_pos
    embedding_backward(
        hook("hook_embed", dx), hook("hook_pos_embed", dx), acts["tokens"],
        grads["embed.W_E"], grads["pos_embed.W_pos"],
    )  # fmt: skip
    return grads


def block_forward(
    x: Array,
    params: Mapping[str, Array],
    l: int,
    config: ModelConfig,
    hook: Hook = as_it_is,
    past: Past | None = None,
) -> Array:  # (B, T, C) -> (B, T, C)
    """One layer, for training and generation alike; ``past`` as in ``attention_forward``."""
    block = f"blocks.{l}."
    x = hook(block + "hook_resid_pre", x)
    normalized = norm(params, block + "ln1", x, config, hook)
    attn_out, _ = attention_forward(
        normalized, attention_params(params, l), config.n_heads, inside(hook, block + "attn."), past
    )
    x = hook(block + "hook_resid_mid", x + hook(block + "hook_attn_out", attn_out))

    normalized = norm(params, block + "ln2", x, config, hook)
    mlp_out, _ = mlp_forward(
        normalized, *mlp_params(params, l), config.activation, inside(hook, block + "mlp.")
    )
    return hook(block + "hook_resid_post", x + hook(block + "hook_mlp_out", mlp_out))


def block_backward(
    dx: Array,
    params: Mapping[str, Array],
    l: int,
    config: ModelConfig,
    acts: Mapping[str, Array],
    grads: Parameters,
    hook: Hook = as_it_is,
    l1: float = 0.0,
) -> Array:  # (B, T, C) -> (B, T, C)
    """Backward of :func:`block_forward`; stores the gradients of its parameters."""
    block, mlp, attn = (f"blocks.{l}.{part}" for part in ("", "mlp.", "attn."))
    # x = x + mlp(layernorm(x)): the gradient goes both ways and meets again
    dx = hook(block + "hook_resid_post", dx)
    W_in, _, W_out, _ = mlp_params(params, l)
    saved = acts[block + "ln2.hook_normalized"], acts[mlp + "hook_pre"], acts[mlp + "hook_post"]
    dnormalized, *mlp_grads = mlp_backward(
        hook(block + "hook_mlp_out", dx), W_in, W_out, saved, config.activation, l1,
        inside(hook, mlp),
    )  # fmt: skip
    for name, value in zip(MLP, mlp_grads, strict=True):
        grads.store(mlp + name, value)
    x = acts[block + "hook_resid_mid"]
    dx = dx + norm_backward(dnormalized, params, block + "ln2", acts, x, grads, hook)

    # x = x + attention(layernorm(x))
    dx = hook(block + "hook_resid_mid", dx)
    attn_saved = {n: acts[f"{attn}hook_{n}"] for n in ("q", "k", "v", "pattern", "z")}
    attn_saved["softmax"] = before_edit(acts, attn + "hook_pattern")
    dnormalized, attn_grads = attention_backward(
        hook(block + "hook_attn_out", dx), acts[block + "ln1.hook_normalized"],
        attention_params(params, l), attn_saved, inside(hook, attn),
    )  # fmt: skip
    for name, value in attn_grads.items():
        grads.store(attn + name, value)
    x = acts[block + "hook_resid_pre"]
    dx = dx + norm_backward(dnormalized, params, block + "ln1", acts, x, grads, hook)
    return hook(block + "hook_resid_pre", dx)


def norm(
    params: Mapping[str, Array], name: str, x: Array, config: ModelConfig, hook: Hook = as_it_is
) -> Array:  # (B, T, C) -> (B, T, C)
    """The layer norm of that name."""
    w, b = params[name + ".w"], params.get(name + ".b")
    return layernorm_forward(x, w, b, config.ln_eps, inside(hook, name + "."))[0]


def norm_backward(
    dy: Array,
    params: Mapping[str, Array],
    name: str,
    acts: Mapping[str, Array],
    x: Array,
    grads: Parameters,
    hook: Hook = as_it_is,
) -> Array:  # (B, T, C) -> (B, T, C)
    """Backward of :func:`norm`, whose input was ``x``; stores the gradients of gain and bias."""
    saved = (x, before_edit(acts, name + ".hook_scale"), acts[name + ".hook_scale"])
    dx, dw, db = layernorm_backward(dy, params[name + ".w"], saved, inside(hook, name + "."))
    grads.store(name + ".w", dw)
    grads.store(name + ".b", db)
    return dx


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


def attention_params(params: Mapping[str, Array], l: int) -> dict[str, Any]:
    """Attention's tensors of layer l by their last name; None for a bias the model lacks."""
    return {name: params.get(f"blocks.{l}.attn.{name}") for name in ATTENTION}


def mlp_params(params: Mapping[str, Array], l: int) -> tuple[Any, Any, Any, Any]:
    """``W_in, b_in, W_out, b_out`` of layer l; None for a bias the model lacks."""
    W_in, b_in, W_out, b_out = (params.get(f"blocks.{l}.mlp.{name}") for name in MLP)
    return W_in, b_in, W_out, b_out
