"""HuggingFace OPT folders (Zhang et al. 2022), the same model as ours under other names.

What differs is only how things are stored:

* linear weights are (out, in); ours are (in, out), and the MLP's W_out is (F, C) in both readings
  of "unit-major", so fc1 is W_in as it is and fc2 is W_out transposed;
* position p is row p + 2 of its table; the first two rows are filler;
* ``final_layer_norm`` inside a layer is the second layer norm (our ln2), the one of the decoder
  is our ln_final;
* the head is the token embedding, and not stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from minirelu.config import ModelConfig
from minirelu.errors import UserError, one_line, shown
from minirelu.model.parameters import Parameters, is_bias, parameter_shapes
from minirelu.text.tokenizer import END, Tokenizer
from minirelu.training.checkpoint import save_tensors
from minirelu.training.files import explained, read_json, replacing_folder

OFFSET = 2  # filler rows of the position table
_PREFIXES = ("model.decoder.", "decoder.", "")


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
    _, l, part = home.split(".")
    module = {
        ("ln1", ""): "self_attn_layer_norm",
        ("ln2", ""): "final_layer_norm",
        ("attn", "Q"): "self_attn.q_proj",
        ("attn", "K"): "self_attn.k_proj",
        ("attn", "V"): "self_attn.v_proj",
        ("attn", "O"): "self_attn.out_proj",
        ("mlp", "in"): "fc1",
        ("mlp", "out"): "fc2",
    }[part, last.partition("_")[2]]
    return f"layers.{l}.{module}.{kind}"


def _stored(name: str, array: np.ndarray) -> np.ndarray:
    """Our layout to OPT's, or back: both are the same transposition."""
    transposed = name.endswith((".W_Q", ".W_K", ".W_V", ".W_O", ".W_out"))
    return array.T if transposed else array


def opt_tensors(params: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """All weights under OPT's names and in its layout; biases that we have not are zeros.

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
    full = ModelConfig(**{**vars(config), "bias": True})
    tensors = {}
    for name, shape in parameter_shapes(full).items():
        ours = params.get(name)
        array = np.zeros(shape, params["embed.W_E"].dtype) if ours is None else ours
        if name == "pos_embed.W_pos":
            array = np.concatenate([np.zeros_like(array[:1].repeat(OFFSET, axis=0)), array])
        tensors["model.decoder." + opt_name(name)] = np.ascontiguousarray(_stored(name, array))
    return tensors


def opt_config(config: ModelConfig, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """``config.json`` of an OPT folder.

    Raises
    ------
    ValueError
        OPT has one MLP width for all layers and a layer norm epsilon of 1e-5.
    """
    if len(set(config.mlp_widths)) > 1:
        raise UserError(f"OPT has one d_mlp for all layers; this model has {config.mlp_widths}")
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
        "ffn_dim": config.mlp_widths[0],
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


def read_opt(folder: str | Path) -> tuple[Parameters, ModelConfig, Tokenizer | None]:
    """Read an OPT folder: one safetensors file, or several with an index.

    Parameters
    ----------
    folder : path

    Returns
    -------
    params : Parameters
        float32.
    config : ModelConfig
    tokenizer : Tokenizer or None
        None where the folder has no ``tokenizer.json``.

    Raises
    ------
    ValueError
        no OPT folder, a variant that is another model (opt-350m's post-LN, another activation,
        projected embeddings), tensors missing or of wrong shape, or an index that names a file
        outside the folder.

    Examples
    --------
    >>> read_opt("no/such/folder")
    Traceback (most recent call last):
    minirelu.errors.UserError: no model in no/such/folder: it has no config.json
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"no model in {shown(folder.as_posix())}: it has no config.json")
    config = _config_from(read_json(folder / "config.json"), shown(folder))
    where = _tensor_files(folder)
    prefix = next((p for p in _PREFIXES if p + "embed_tokens.weight" in where), None)
    if prefix is None:
        raise UserError(f"{shown(folder)} has no tensor embed_tokens.weight; is it an OPT model?")

    shapes = parameter_shapes(config)
    names = {name: prefix + opt_name(name) for name in shapes}
    # every shape is checked before memory is taken: a config can claim anything
    for name, stored_name in names.items():
        if stored_name not in where:
            raise UserError(f"{shown(folder)} has no tensor {stored_name!r}")
        expected = shapes[name]
        if name == "pos_embed.W_pos":
            expected = (expected[0] + OFFSET, expected[1])
        expected = _stored(name, np.broadcast_to(np.float32(0), expected)).shape
        shape = _slice(where[stored_name], stored_name, shape_only=True)
        if shape != expected:
            raise UserError(
                f"{shown(folder)}: {stored_name} has shape {shape}; its config.json says {expected}"
            )
    params = Parameters(config)
    for name, stored_name in names.items():
        array = _slice(where[stored_name], stored_name)
        if name == "pos_embed.W_pos":
            array = array[OFFSET:]
        params[name][...] = _stored(name, array)
    if "lm_head.weight" in where:
        head = _slice(where["lm_head.weight"], "lm_head.weight")
        if not np.array_equal(head.astype(np.float32), params["embed.W_E"]):
            raise UserError(f"{shown(folder)}: its lm_head is not tied to the embedding; ours is")
    tokenizer_file = folder / "tokenizer.json"
    tokenizer = Tokenizer.load(tokenizer_file) if tokenizer_file.is_file() else None
    return params, config, tokenizer


def _config_from(settings: Any, where: str) -> ModelConfig:
    """OPT's settings to ours; refuses the variants that are other models, by name."""
    if not isinstance(settings, dict) or settings.get("model_type") != "opt":
        found = settings.get("model_type") if isinstance(settings, dict) else settings
        raise UserError(f"{where} is not an OPT model: its model_type is {one_line(repr(found))}")
    if not settings.get("do_layer_norm_before", True):
        raise UserError(
            f"{where} is OPT's post-LN variant (opt-350m: layer norm behind each part, not before "
            "it), which is another model; use one of the other sizes"
        )
    width = settings.get("hidden_size")
    must_be = {
        "activation_function": "relu",
        "word_embed_proj_dim": width,
        "_remove_final_layer_norm": False,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
    }
    for key, wanted in must_be.items():
        value = settings.get(key, wanted)
        if value != wanted and value is not None:
            raise UserError(f"{where}: {key} is {one_line(repr(value))}; only {wanted!r} is ours")
    keys = {
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "d_model": "hidden_size",
        "d_mlp": "ffn_dim",
        "n_ctx": "max_position_embeddings",
        "d_vocab": "vocab_size",
    }
    for theirs in keys.values():
        if theirs not in settings:
            raise UserError(f"{where}: config.json has no {theirs}")
    try:
        return ModelConfig(**{ours: settings[theirs] for ours, theirs in keys.items()})
    except UserError as e:
        raise UserError(f"{where}: config.json does not fit: {e}") from None


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name to the file that holds it; a shard's name cannot lead out of the folder."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        content = read_json(index)
        where = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(where, dict):
            raise UserError(f"{shown(index)} has no weight_map")
        if not all(isinstance(file, str) and len(file) < 256 for file in where.values()):
            raise UserError(f"{shown(index)} has a weight_map that does not name files")
        for file in sorted(set(where.values())):
            if Path(file).name != file or file in ("", ".", "..") or "\\" in file or ":" in file:
                raise UserError(
                    f"{shown(index)} names {one_line(repr(file))}, not a file of its folder"
                )
            if not (folder / file).is_file():
                raise UserError(f"{shown(folder)} has no {one_line(file)}, which its index names")
        return {name: folder / file for name, file in where.items()}
    if single.is_file():
        return {name: single for name in _names_in(single)}
    if any(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{shown(folder)} holds a pickled pytorch_model.bin, which is never loaded (unpickling "
            "can run code); save the model with safe_serialization=True"
        )
    raise UserError(f"{shown(folder)} has no model.safetensors")


def _names_in(file: Path) -> Iterator[str]:
    try:
        with safe_open(file, framework="numpy") as f:
            return iter(list(f.keys()))
    except (SafetensorError, OSError) as e:
        raise UserError(f"{shown(file)} is no readable safetensors file: {one_line(e)}") from None


def _slice(file: Path, name: str, shape_only: bool = False) -> Any:
    """One tensor of a file, or only its shape."""
    try:
        with safe_open(file, framework="numpy") as f:
            if shape_only:
                return tuple(f.get_slice(name).get_shape())
            return f.get_tensor(name)
    except (SafetensorError, OSError, TypeError) as e:
        raise UserError(f"{shown(file)}: cannot read {one_line(name)}: {one_line(e)}") from None
