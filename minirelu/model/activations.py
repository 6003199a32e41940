"""The one table of activations: every name, its shape and what exactly it holds.

The names and meanings are those of TransformerLens. ``python -m minirelu.model.activations``
prints the table as Markdown; a test holds the forward to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from minirelu.config import ModelConfig
from minirelu.errors import UserError, nearest
from minirelu.model.hooks import BEFORE


class Activation(NamedTuple):
    """One row of the table; ``{l}`` in the name stands for the layer."""

    name: str
    shape: str
    meaning: str


ACTIVATIONS = (
    Activation("tokens", "B T", "the input itself"),
    Activation("hook_embed", "B T C", "row of W_E for each token"),
    Activation("hook_pos_embed", "B T C", "row of W_pos for each position"),
    Activation("blocks.{l}.hook_resid_pre", "B T C", "residual stream as the block gets it"),
    Activation("blocks.{l}.ln1.hook_scale", "B T 1", "sqrt(variance + ln_eps)"),
    Activation(
        "blocks.{l}.ln1.hook_normalized",
        "B T C",
        "output of the layer norm, gain and bias applied: the attention's input",
    ),
    Activation("blocks.{l}.attn.hook_q", "B T H D", "queries, bias added, not yet scaled"),
    Activation("blocks.{l}.attn.hook_k", "B T H D", "keys, bias added"),
    Activation("blocks.{l}.attn.hook_v", "B T H D", "values, bias added"),
    Activation(
        "blocks.{l}.attn.hook_attn_scores",
        "B H T T",
        "q·k / sqrt(D), (query, key); -inf where the key is later than the query",
    ),
    Activation("blocks.{l}.attn.hook_pattern", "B H T T", "softmax of the scores over the keys"),
    Activation("blocks.{l}.attn.hook_z", "B T H D", "values averaged with the pattern"),
    Activation("blocks.{l}.hook_attn_out", "B T C", "what attention adds to the residual stream"),
    Activation("blocks.{l}.hook_resid_mid", "B T C", "residual stream after attention"),
    Activation("blocks.{l}.ln2.hook_scale", "B T 1", "sqrt(variance + ln_eps)"),
    Activation(
        "blocks.{l}.ln2.hook_normalized",
        "B T C",
        "output of the layer norm, gain and bias applied: the MLP's input",
    ),
    Activation(
        "blocks.{l}.mlp.hook_pre",
        "B T F",
        "hidden units before the activation function, bias added",
    ),
    Activation(
        "blocks.{l}.mlp.hook_post",
        "B T F",
        "hidden units after it; with ReLU, a unit is on where this is above 0",
    ),
    Activation("blocks.{l}.hook_mlp_out", "B T C", "what the MLP adds to the residual stream"),
    Activation("blocks.{l}.hook_resid_post", "B T C", "residual stream after the block"),
    Activation("ln_final.hook_scale", "B T 1", "sqrt(variance + ln_eps)"),
    Activation(
        "ln_final.hook_normalized",
        "B T C",
        "output of the final layer norm: what the unembedding reads",
    ),
)

# What the backward reads; the rest can be dropped while training.
_BACKWARD = tuple(
    "tokens resid_pre resid_mid resid_post scale normalized hook_q hook_k hook_v pattern hook_z "
    "hook_pre hook_post".split()
)


def activation_names(config: ModelConfig) -> list[str]:
    """Names of all activations of a model, in the order of the forward.

    >>> config = ModelConfig(n_layers=2, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> len(activation_names(config))
    39
    """
    before = [a.name for a in ACTIVATIONS if not a.name.startswith(("blocks", "ln_final"))]
    block = [a.name for a in ACTIVATIONS if a.name.startswith("blocks")]
    after = [a.name for a in ACTIVATIONS if a.name.startswith("ln_final")]
    layers = [name.format(l=l) for l in range(config.n_layers) for name in block]
    return before + layers + after


def backward_names(config: ModelConfig, edited: Iterable[str] = ()) -> set[str]:
    """Names that :func:`minirelu.backward` needs; of edited ones also what they were before."""
    needed = {name for name in activation_names(config) if name.endswith(_BACKWARD)}
    return needed | {name + BEFORE for name in edited}


def mlp_names(config: ModelConfig, which: str = "post") -> list[str]:
    """``blocks.{l}.mlp.hook_post`` (or ``hook_pre``) of every layer.

    >>> config = ModelConfig(n_layers=2, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> mlp_names(config)
    ['blocks.0.mlp.hook_post', 'blocks.1.mlp.hook_post']
    """
    return [f"blocks.{l}.mlp.hook_{which}" for l in range(config.n_layers)]


def check_names(keep: Iterable[str] | None, config: ModelConfig) -> set[str]:
    """Return ``keep`` as a set (all names for None), or raise for a name that is not one."""
    known = activation_names(config)
    if keep is None:
        return set(known)
    if isinstance(keep, str):
        raise UserError(f"keep: give a list of names, such as [{keep!r}]")
    wanted = set(keep)
    for name in sorted(wanted.difference(known)):
        raise UserError(f"keep: no activation {name!r}{nearest(name, known)}")
    return wanted


def as_markdown() -> str:
    """Return the table for the documentation."""
    rows = [f"| `{a.name}` | ({', '.join(a.shape.split())}) | {a.meaning} |" for a in ACTIVATIONS]
    return "\n".join(["| name | shape | meaning |", "|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
