"""Reading OPT folders: what is ours is taken, what is another model is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from minirelu.config import ModelConfig
from minirelu.errors import UserError, one_line, shown
from minirelu.interop.opt import OFFSET, opt_name, stored
from minirelu.model.parameters import Parameters, parameter_shapes
from minirelu.runs.files import read_json
from minirelu.text.tokenizer import Tokenizer

_PREFIXES = ("model.decoder.", "decoder.", "")


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
        not an OPT folder, a variant that is another model (opt-350m's post-LN, another activation,
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
        expected = stored(name, np.broadcast_to(np.float32(0), expected)).shape
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
        params[name][...] = stored(name, array)
    if "lm_head.weight" in where:
        head = _slice(where["lm_head.weight"], "lm_head.weight")
        if not np.array_equal(head.astype(np.float32), params["embed.W_E"]):
            raise UserError(
                f"{shown(folder)}: its lm_head is not tied to the embedding, as it must be here"
            )
    tokenizer_file = folder / "tokenizer.json"
    tokenizer = Tokenizer.load(tokenizer_file) if tokenizer_file.is_file() else None
    return params, config, tokenizer


def _config_from(settings: Any, where: str) -> ModelConfig:
    """OPT's settings to ours; refuses the variants that are other models, by name."""
    if not isinstance(settings, dict) or settings.get("model_type") != "opt":
        model_type = settings.get("model_type") if isinstance(settings, dict) else settings
        raise UserError(
            f"{where} is not an OPT model: its model_type is {one_line(repr(model_type))}"
        )
    if not settings.get("do_layer_norm_before", True):
        raise UserError(
            f"{where} is OPT's post-LN variant (opt-350m: layer norm after each part, not before "
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
    for key, required in must_be.items():
        value = settings.get(key, required)
        if value != required and value is not None:
            raise UserError(
                f"{where}: {key} is {one_line(repr(value))}; only {required!r} is supported"
            )
    keys = {
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "d_model": "hidden_size",
        "d_mlp": "ffn_dim",
        "n_ctx": "max_position_embeddings",
        "d_vocab": "vocab_size",
    }
    for opt_key in keys.values():
        if opt_key not in settings:
            raise UserError(f"{where}: config.json lacks {opt_key}")
    try:
        return ModelConfig(**{ours: settings[opt_key] for ours, opt_key in keys.items()})
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
        raise UserError(
            f"{shown(file)} is not a readable safetensors file: {one_line(e)}"
        ) from None


def _slice(file: Path, name: str, shape_only: bool = False) -> Any:
    """One tensor of a file, or only its shape."""
    try:
        with safe_open(file, framework="numpy") as f:
            if shape_only:
                return tuple(f.get_slice(name).get_shape())
            return f.get_tensor(name)
    except (SafetensorError, OSError, TypeError) as e:
        raise UserError(f"{shown(file)}: cannot read {one_line(name)}: {one_line(e)}") from None
