"""HuggingFace OPT folders (Zhang et al. 2022), the same model as ours under other names.

What differs is only how things are stored:

* linear weights are (out, in); attention's are (in, out) here and so transposed. Both matrices of
  our MLP are (F, C): W_in is fc1 as it is, W_out is fc2 transposed;
* position p is row p + 2 of its table; the first two rows are filler;
* ``final_layer_norm`` inside a layer is the second layer norm (our ln2), the one of the decoder
  is our ln_final;
* the head is the token embedding, and not stored;
* all layers have one width: narrower ones are padded with silent units, whose weights are 0.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.config import ModelConfig
from minirelu.errors import UserError, shown
from minirelu.model.parameters import is_bias, parameter_shapes
from minirelu.runs.checkpoint import save_tensors
from minirelu.runs.files import explained, replacing_folder
from minirelu.text.tokenizer import END, Tokenizer

OFFSET = 2  # filler rows of the position table


def opt_name(name: str) -> str:
    """Return OPT's name, without prefix, of one of our parameters.

    >>> opt_name("blocks.3.mlp.W_in"), opt_name("ln_final.b")
    ('layers.3.fc1.weight', 'final_layer_norm.bias')
    """
    whole = {"embed.W_E": "embed_tokens.weight", "pos_embed.W_pos": "embed_positions.weight"}
    if name in whole:
        return whole[name]
    home, _, last = name.rpartition(".")
    kind = "bias" if is_bias(name) else "weight"
    if home == "ln_final":
        return f"final_layer_norm.{kind}"
    _, l, part = home.split(".") if home.count(".") == 2 else ("", "", home)
    module = {
        ("ln1", ""): "self_attn_layer_norm",
        ("ln2", ""): "final_layer_norm",
        ("attn", "Q"): "self_attn.q_proj",
        ("attn", "K"): "self_attn.k_proj",
        ("attn", "V"): "self_attn.v_proj",
        ("attn", "O"): "self_attn.out_proj",
        ("mlp", "in"): "fc1",
        ("mlp", "out"): "fc2",
    }.get((part, last.partition("_")[2]))
    if module is None:
        raise UserError(f"OPT lacks a tensor for {name!r}; this model cannot be written as OPT")
    return f"layers.{l}.{module}.{kind}"


def stored(name: str, array: np.ndarray) -> np.ndarray:
    """Our layout to OPT's, or back: both are the same transposition."""
    transposed = name.endswith((".W_Q", ".W_K", ".W_V", ".W_O", ".W_out"))
    return array.T if transposed else array


def silent_units(config: ModelConfig) -> list[int]:
    """Units that each layer lacks of the widest one, (L,); an OPT folder holds zeros for them.

    With ReLU a unit whose weights and bias are 0 is off at every token, and writes nothing.

    >>> silent_units(ModelConfig(2, n_heads=1, d_model=2, d_mlp=(3, 5), n_ctx=4, d_vocab=5))
    [2, 0]
    """
    return [max(config.mlp_widths) - F for F in config.mlp_widths]


def opt_tensors(params: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """All weights under OPT's names and in its layout; what our model lacks is zeros.

    It may lack biases, and units of the narrower layers.

    Parameters
    ----------
    params : mapping of ndarray
    config : ModelConfig

    Returns
    -------
    dict of ndarray
        names as in ``OPTForCausalLM.state_dict()``.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> tensors = opt_tensors(mr.init_params(config), config)
    >>> tensors["model.decoder.layers.0.fc2.weight"].shape
    (2, 3)
    """
    full = dataclasses.replace(config, bias=True, d_mlp=max(config.mlp_widths))
    tensors = {}
    for name, shape in parameter_shapes(full).items():
        array = np.zeros(shape, params["embed.W_E"].dtype)
        if name in params:
            array[: len(params[name])] = params[name]  # units are rows; those after them stay 0
        if name == "pos_embed.W_pos":
            array = np.concatenate([np.zeros_like(array[:1].repeat(OFFSET, axis=0)), array])
        tensors["model.decoder." + opt_name(name)] = np.ascontiguousarray(stored(name, array))
    return tensors


def opt_config(config: ModelConfig, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """``config.json`` of an OPT folder.

    Raises
    ------
    ValueError
        OPT has ReLU, and a layer norm epsilon of 1e-5.
    """
    if config.act_fn != "relu":
        raise UserError(f"OPT has act_fn relu; this model has {config.act_fn}, and cannot be OPT")
    if config.ln_eps != 1e-5:
        raise UserError(f"OPT has ln_eps 1e-5; this model has {config.ln_eps:g}")
    end = tokenizer.end if tokenizer is not None else None
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "vocab_size": config.d_vocab,
        "hidden_size": config.d_model,
        "word_embed_proj_dim": config.d_model,
        "num_hidden_layers": config.n_layers,
        "ffn_dim": max(config.mlp_widths),
        "max_position_embeddings": config.n_ctx,
        "num_attention_heads": config.n_heads,
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "tie_word_embeddings": True,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "torch_dtype": "float32",
    }


def write_opt(
    params: Mapping[str, np.ndarray],
    config: ModelConfig,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write a folder that ``OPTForCausalLM.from_pretrained`` and ``AutoTokenizer`` load.

    Parameters
    ----------
    params : mapping of ndarray
    config : ModelConfig
    folder : path
        must not exist, or be empty; it appears complete or not at all.
    tokenizer : Tokenizer, optional

    Raises
    ------
    ValueError
        the folder is taken, cannot be written, or the model is one that OPT cannot express.
    """
    folder = Path(folder)
    settings = opt_config(config, tokenizer)
    with explained(f"writing {shown(folder)}"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{shown(folder)} exists and is not an empty folder; name another")
        with replacing_folder(folder) as new:
            save_tensors(new / "model.safetensors", opt_tensors(params, config))
            files: dict[str, Any] = {"config.json": settings}
            if tokenizer is not None:
                (new / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
                special = {"bos_token": END, "eos_token": END, "pad_token": END}
                files["tokenizer_config.json"] = {
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "model_max_length": config.n_ctx,
                    "clean_up_tokenization_spaces": False,
                    **(special if tokenizer.end is not None else {}),
                }
            for name, content in files.items():
                (new / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
