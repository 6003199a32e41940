"""OPT folders: the referee's logits and gradients, the way there and back, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import random_params, random_tokens

import minirelu as mr
from minirelu.interop import read_opt, write_opt
from minirelu.interop.opt import opt_config, opt_name, opt_tensors, silent_units
from minirelu.text.tokenizer import Tokenizer

# --- the referee: an independent implementation of the same model


@pytest.fixture
def referee():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers.OPTForCausalLM, transformers.OPTConfig


def opt_model(referee, params: mr.Parameters, config: mr.ModelConfig):
    import torch

    OPTForCausalLM, OPTConfig = referee
    # not "eager", which computes its softmax in float32 whatever the model's dtype
    model = OPTForCausalLM(OPTConfig(**opt_config(config), attn_implementation="sdpa"))
    dtype = torch.float64 if params.dtype == np.float64 else torch.float32
    tensors = {n: torch.tensor(a) for n, a in opt_tensors(params, config).items()}
    missing, unexpected = model.to(dtype).load_state_dict(tensors, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    model.tie_weights()
    return model


@pytest.mark.referee
@pytest.mark.parametrize("T", [1, 2, 7, 9])
@pytest.mark.parametrize("dtype, limit", [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_logits_and_every_gradient_equal_opt(referee, odd, dtype, limit, T):
    import torch

    params = random_params(odd, seed=T, dtype=dtype)
    tokens, targets = random_tokens(odd, 3, T, seed=1), random_tokens(odd, 3, T, seed=2)
    model = opt_model(referee, params, odd)
    their_logits = model(torch.tensor(tokens)).logits
    their_loss = torch.nn.functional.cross_entropy(
        their_logits.reshape(-1, odd.d_vocab), torch.tensor(targets).reshape(-1)
    )
    their_loss.backward()

    logits, _ = mr.forward(params, tokens, odd)
    error = np.abs(logits - their_logits.detach().numpy()).max() / np.abs(logits).max()
    assert error < limit, f"logits: {error:.1e}"
    for mlp in ("reference", "dense", "sparse"):
        loss, grads = mr.loss_and_grads(params, tokens, targets, odd, compute=mlp)
        assert loss == pytest.approx(their_loss.item(), rel=limit)
        worst = 0.0
        gradients = {n: p.grad for n, p in model.named_parameters()}
        for name in grads:
            expected = gradients["model.decoder." + opt_name(name)].numpy()
            if name == "pos_embed.W_pos":
                assert np.all(expected[:2] == 0)
                expected = expected[2:]
            if name.endswith(("W_Q", "W_K", "W_V", "W_O", "W_out")):
                expected = expected.T
            # The keys' bias has gradient 0 in theory; and so have queries and keys of a
            # sequence of one token, whose pattern is always 1.
            nothing = name.endswith("b_K") or (T == 1 and name.endswith(("_Q", "W_K")))
            scale = 1.0 if nothing else max(np.linalg.norm(expected), 1e-30)
            error = np.linalg.norm(grads[name] - expected) / scale
            worst = max(worst, error)
            assert error < limit, f"{name}: {error:.1e}"
        print(f"T {T}, {np.dtype(dtype)}, {mlp}: largest relative error {worst:.1e}")


@pytest.mark.referee
def test_exported_run_loads_and_agrees(referee, finished_run, tmp_path):
    import torch
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = tmp_path / "opt"
    write_opt(finished_run.params(), finished_run.config, folder, finished_run.tokenizer)
    model = referee[0].from_pretrained(folder)
    tokens = finished_run.probe_tokens[:2, :-1]
    ours, _ = mr.forward(finished_run.params(), tokens, finished_run.config)
    expected = model(torch.tensor(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(expected, ours, rtol=1e-4, atol=1e-5)
    text = "the cat sees a dog.\n né"
    for kind in (AutoTokenizer, PreTrainedTokenizerFast):
        tokenizer = kind.from_pretrained(folder)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == finished_run.tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.eos_token_id == finished_run.tokenizer.end == 0


@pytest.mark.referee
@pytest.mark.parametrize("sharded", [False, True])
def test_folders_that_transformers_saves_are_read(referee, odd, tmp_path, sharded):
    params = random_params(odd, dtype=np.float32)
    model = opt_model(referee, params, odd)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="5KB" if sharded else "1GB")
    index = tmp_path / "theirs" / "model.safetensors.index.json"
    assert index.exists() == sharded
    again, config, tokenizer = read_opt(tmp_path / "theirs")
    assert config == odd and tokenizer is None
    np.testing.assert_array_equal(again.flat, params.flat)
    # the decoder alone, without the head: tensor names without "model."
    model.model.save_pretrained(tmp_path / "decoder")
    np.testing.assert_array_equal(read_opt(tmp_path / "decoder")[0].flat, params.flat)


# --- there and back, without the referee


@pytest.fixture
def opt_folder(odd, tmp_path) -> Path:
    write_opt(random_params(odd, dtype=np.float32), odd, tmp_path / "opt", Tokenizer.from_bytes())
    return tmp_path / "opt"


def change_config(folder: Path, **changes) -> None:
    file = folder / "config.json"
    settings = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    file.write_text(json.dumps(settings), encoding="utf-8")


def shard(folder: Path, prefix: str = "model.decoder.") -> Path:
    """Spread the tensors over two files with an index, under another prefix."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {}
    for i, (name, array) in enumerate(sorted(tensors.items())):
        where[name.replace("model.decoder.", prefix)] = (f"part-{i % 2}.safetensors", array)
    for file in ("part-0.safetensors", "part-1.safetensors"):
        save_file({n: a for n, (f, a) in where.items() if f == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    content = {"weight_map": {n: f for n, (f, _) in where.items()}}
    index.write_text(json.dumps(content), encoding="utf-8")
    return index


def test_an_opt_folder_read_back_is_the_same_model(opt_folder, odd):
    params, config, tokenizer = read_opt(opt_folder)
    assert config == odd
    np.testing.assert_array_equal(params.flat, random_params(odd, dtype=np.float32).flat)
    assert tokenizer.decode(tokenizer.encode("né")) == "né"


@pytest.mark.parametrize("prefix", ["model.decoder.", "decoder.", ""])
def test_sharded_folders_and_other_prefixes_are_read(opt_folder, odd, prefix):
    shard(opt_folder, prefix)
    params, _, _ = read_opt(opt_folder)
    np.testing.assert_array_equal(params.flat, random_params(odd, dtype=np.float32).flat)


def test_model_without_biases_is_the_same_model_with_zeros(odd, tmp_path):
    config = mr.ModelConfig(**{**vars(odd), "bias": False})
    params = random_params(config, dtype=np.float32)
    write_opt(params, config, tmp_path / "opt")
    again, full, _ = read_opt(tmp_path / "opt")
    tokens = random_tokens(odd, 2, 7)
    assert full.bias and not config.bias
    a, b = mr.forward(params, tokens, config)[0], mr.forward(again, tokens, full)[0]
    np.testing.assert_array_equal(a, b)


@pytest.fixture(params=[True, False], ids=["bias", "no bias"])
def uneven(odd, request) -> mr.ModelConfig:
    """As pruning makes them: layers of different width, one of a single unit."""
    return dataclasses.replace(odd, n_layers=3, d_mlp=(5, 37, 1), bias=request.param)


def test_layers_of_different_width_are_padded_with_silent_units(uneven, tmp_path):
    params = random_params(uneven, dtype=np.float32)
    assert silent_units(uneven) == [32, 0, 36]
    write_opt(params, uneven, tmp_path / "opt")
    again, config, _ = read_opt(tmp_path / "opt")
    assert config == dataclasses.replace(uneven, d_mlp=37, bias=True)
    tokens = random_tokens(uneven, 2, 9)
    ours, acts = mr.forward(params, tokens, uneven)
    padded, of_padded = mr.forward(again, tokens, config)
    np.testing.assert_allclose(padded, ours, rtol=1e-5, atol=1e-5)
    for l, F in enumerate(uneven.mlp_widths):
        name = f"blocks.{l}.mlp.hook_post"
        np.testing.assert_allclose(of_padded[name][..., :F], acts[name], rtol=1e-5, atol=1e-5)
        assert not of_padded[name][..., F:].any(), "what was added must be silent"


@pytest.mark.referee
def test_the_referee_sees_the_same_model_when_layers_are_padded(referee, uneven, tmp_path):
    import torch

    params = random_params(uneven, dtype=np.float32)
    write_opt(params, uneven, tmp_path / "opt")
    tokens = random_tokens(uneven, 2, 9)
    theirs = referee[0].from_pretrained(tmp_path / "opt")(torch.tensor(tokens)).logits
    ours, _ = mr.forward(params, tokens, uneven)
    np.testing.assert_allclose(theirs.detach().numpy(), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"do_layer_norm_before": False}, "opt-350m"),
        ({"word_embed_proj_dim": 6}, "word_embed_proj_dim"),
        ({"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ({"_remove_final_layer_norm": True}, "_remove_final_layer_norm"),
        ({"model_type": "gpt2"}, "not an OPT model"),
        ({"num_attention_heads": 5}, "does not divide"),
        ({"ffn_dim": 38}, "config.json says (38, 12)"),
        ({"vocab_size": 1 << 60}, "d_vocab"),
        ({"vocab_size": 1 << 22, "hidden_size": 1 << 16, "word_embed_proj_dim": 1 << 16,
          "num_attention_heads": 1}, "config.json says"),
    ],
)  # fmt: skip
def test_other_models_and_hostile_sizes_are_refused(opt_folder, changes, words):
    change_config(opt_folder, **changes)
    with pytest.raises(ValueError) as e:
        read_opt(opt_folder)
    assert words in str(e.value)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a\\b.safetensors", "C:x", "..", "sub/x"]
)
def test_shards_cannot_lead_out_of_the_folder(opt_folder, name):
    shutil.copy(opt_folder / "model.safetensors", opt_folder.parent / "outside.safetensors")
    index = shard(opt_folder)
    content = json.loads(index.read_text(encoding="utf-8"))
    content["weight_map"] = dict.fromkeys(content["weight_map"], name)
    index.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="not a file of its folder"):
        read_opt(opt_folder)


def test_missing_pickled_and_damaged_files_are_refused(opt_folder, tmp_path):
    weights = opt_folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-8])
    with pytest.raises(ValueError, match="not a readable safetensors"):
        read_opt(opt_folder)
    weights.write_bytes((1 << 60).to_bytes(8, "little") + content[8:])  # a header of 2^60 bytes
    with pytest.raises(ValueError, match="not a readable safetensors"):
        read_opt(opt_folder)
    weights.unlink()
    with pytest.raises(ValueError, match="has no model.safetensors"):
        read_opt(opt_folder)
    (opt_folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ValueError, match="never loaded"):
        read_opt(opt_folder)
    with pytest.raises(ValueError, match="no config.json"):
        read_opt(tmp_path)


def test_an_untied_head_is_refused(opt_folder):
    from safetensors.numpy import load_file, save_file

    file = opt_folder / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"].copy()
    save_file(tensors, file)
    read_opt(opt_folder)  # the same numbers: tied
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, file)
    with pytest.raises(ValueError, match="not tied"):
        read_opt(opt_folder)


def test_what_opt_cannot_express_is_refused(odd, tmp_path):
    other = mr.ModelConfig(**{**vars(odd), "ln_eps": 1e-3})
    with pytest.raises(ValueError, match="ln_eps"):
        write_opt(random_params(other), other, tmp_path / "b")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    with pytest.raises(ValueError, match="not an empty folder"):
        write_opt(random_params(odd), odd, tmp_path / "taken")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken"]
