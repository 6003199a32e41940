"""Settings: what is refused and how it is said, the order of their sources, TOML there and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import minirelu as mr
from minirelu.config import PRESETS, SECTIONS, Config, read_toml

GOOD = dict(n_layers=2, n_heads=2, d_model=8, d_mlp=16, n_ctx=8, d_vocab=50)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("n_heads", 3, "n_heads: 3 does not divide d_model 8"),
        ("n_layers", 0, "n_layers: 0 is not allowed; it must be a whole number from 1"),
        ("n_layers", -2, "n_layers: -2"),
        ("n_layers", 10**12, "n_layers"),
        ("d_model", 2.5, "d_model: 2.5"),
        ("d_model", "8", "d_model: '8'"),
        ("d_model", True, "d_model: True"),
        ("d_mlp", (3, 4, 5), "d_mlp: 3 numbers for 2 layers"),
        ("d_mlp", (3, 0), "d_mlp: 0"),
        ("d_mlp", (), "d_mlp: an empty list"),
        ("bias", 1, "bias: 1 is not allowed; it must be true or false"),
        ("init", "gtp2", "did you mean 'gpt2'"),
        ("ln_eps", float("nan"), "ln_eps: nan"),
    ],
)
def test_wrong_values_name_field_value_and_what_is_allowed(field, value, words):
    with pytest.raises(ValueError) as e:
        mr.ModelConfig(**{**GOOD, field: value})
    assert words in str(e.value)


@pytest.mark.parametrize(
    "field, value",
    [("steps", -1), ("learning_rate", float("inf")), ("beta2", 1.0), ("compute", "gpu")],
)
def test_wrong_training_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        mr.TrainConfig(**{field: value})
    with pytest.raises(ValueError, match="micro_batches: 3 does not divide batch_size 8"):
        mr.TrainConfig(micro_batches=3)


def test_every_field_is_checked():
    """No field takes a value of a type that none of them has."""
    for kind in SECTIONS.values():
        good = GOOD if kind is mr.ModelConfig else {}
        for f in dataclasses.fields(kind):
            with pytest.raises(ValueError, match=f.name):
                kind(**{**good, f.name: object()})


def test_configs_are_frozen_and_take_numpy_integers():
    config = mr.ModelConfig(**{**GOOD, "d_mlp": [np.int64(3), 4]})
    assert config.d_mlp == (3, 4) and type(config.d_mlp[0]) is int
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.d_mlp = 5


def test_options_override_the_file_and_the_file_the_preset(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('preset = "tiny"\n[train]\nsteps = 7\nseed = 3\n', encoding="utf-8")
    config = Config.build(None, file, {"train": {"seed": 4}})
    assert config.train.seed == 4  # option
    assert config.train.steps == 7  # file
    assert config.model.d_model == PRESETS["tiny"]["model"]["d_model"]  # the file's preset
    assert config.train.batch_size == mr.TrainConfig().batch_size  # small
    assert Config.build("wide", file).model.d_mlp == 8192  # --preset overrides the file's


def test_a_presets_limit_applies_to_the_default_corpus_only(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('[text]\ncorpus = "my.txt"\n', encoding="utf-8")
    own_corpus = {"text": {"corpus": "my.txt"}}
    assert Config.build("tiny").text.limit_mb == 1
    assert Config.build("tiny", options={"text": {"corpus": "stdlib"}}).text.limit_mb == 1
    assert Config.build("tiny", options=own_corpus).text.limit_mb == 0
    assert Config.build("tiny", file).text.limit_mb == 0
    assert Config.build("tiny", file, {"text": {"limit_mb": 2}}).text.limit_mb == 2
    assert Config.build("tiny", file, {"text": {"corpus": "stdlib"}}).text.limit_mb == 1
    file.write_text("[text]\nlimit_mb = 3\n", encoding="utf-8")
    assert Config.build("tiny", file, own_corpus).text.limit_mb == 3


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_toml(preset, tmp_path):
    widths = (5,) * Config.build(preset).model.n_layers
    config = Config.build(preset, options={"model": {"d_mlp": widths}})
    assert Config.from_toml(config.to_toml()) == config
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml(made_with={"python": "3"}), encoding="utf-8")
    assert Config.build(file=file) == config  # a run's own file can be trained again


def test_default_is_small_as_described():
    config = Config.build()
    m = config.model
    assert (m.n_layers, m.d_model, m.d_mlp, m.n_heads, m.bias) == (6, 64, 2048, 4, False)
    assert (m.n_ctx, m.d_vocab, config.text.corpus) == (256, 1024, "stdlib")
    plain = Config.build("plain")
    assert (plain.model.d_model, plain.model.d_vocab, plain.train.steps) == (128, 4096, 700)
    paper = Config.build("paper")
    assert paper.model.d_mlp == 32768 and paper.train.batch_size * paper.model.n_ctx == 8192


@pytest.mark.parametrize(
    "text, words",
    [
        ("[train]\nlerning_rate = 1", "did you mean 'learning_rate'"),
        ("[trian]\nsteps = 1", "did you mean 'train'"),
        ("steps = 1", "it belongs under [train]"),
        ('preset = "smal"', "did you mean 'small'"),
        ("train = 3", "must be a section"),
        ("[train]\nsteps = -1", "steps: -1"),
        ("[train\n", "not valid TOML"),
    ],
)
def test_wrong_toml_is_named(tmp_path, text, words):
    file = tmp_path / "my.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as e:
        Config.build(file=file)
    assert words in str(e.value) and "\n" not in str(e.value)


def test_missing_and_undecodable_settings_files_are_named(tmp_path):
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf[train]\nsteps = 3\n")
    assert read_toml(tmp_path / "bom.toml") == {"train": {"steps": 3}}
    with pytest.raises(ValueError, match="it is not a file"):
        read_toml(tmp_path)
    with pytest.raises(ValueError, match="cannot read the settings file"):
        read_toml(tmp_path / "no.toml")
    (tmp_path / "latin.toml").write_bytes(b'x = "\xe9"')
    with pytest.raises(ValueError, match="not valid TOML"):
        read_toml(tmp_path / "latin.toml")


def test_differences_name_the_settings():
    a, b = Config.build("tiny"), Config.build("tiny", options={"train": {"steps": 5}})
    assert a.differences(a) == []
    assert a.differences(b) == [f"train.steps: {a.train.steps}, not 5"]


def test_settings_that_0_1_wrote_are_read(tmp_path):
    """There ``compute`` was ``mlp``, and ``reference`` was ``numpy``."""
    old = tmp_path / "old.toml"
    for before, now in (("numpy", "reference"), ("auto", "auto"), ("dense", "dense")):
        old.write_text(f'preset = "tiny"\n[train]\nmlp = "{before}"\n', encoding="utf-8")
        assert Config.build(None, old).train.compute == now
