"""Every setting there is: what it means, what it may be, the presets, TOML in and out.

Three frozen dataclasses (:class:`ModelConfig`, :class:`TextConfig`, :class:`TrainConfig`) and
:class:`Config`, which holds one of each. The command line makes its options from the same fields,
so a setting is described in one place only.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirelu.errors import UserError, nearest, one_line, shown
from minirelu.model.activation_functions import (
    ActFn,
    act_fn_names,
    act_fn_settings,
    activation_function,
)
from minirelu.settings import Checked, setting
from minirelu.training.interventions import INTERVENTIONS, parse_interventions
from minirelu.training.optimizers import OPTIMIZERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


# Who computes, see ``minirelu.compute``.
COMPUTE = ("auto", "dense", "sparse", "reference")


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The shape of a model. ``F = d_mlp``, ``C = d_model``, ``D = d_model // n_heads``.

    Raises
    ------
    ValueError
        naming the field, its value and what is allowed.

    Examples
    --------
    >>> config = ModelConfig(n_layers=2, n_heads=2, d_model=8, d_mlp=32, n_ctx=16, d_vocab=100)
    >>> config.d_head, config.mlp_widths
    (4, (32, 32))
    >>> ModelConfig(n_layers=2, n_heads=3, d_model=8, d_mlp=32, n_ctx=16, d_vocab=100)
    Traceback (most recent call last):
    minirelu.errors.UserError: n_heads: 3 does not divide d_model 8; choose one that does
    """

    n_layers: int = setting(int, "Transformer blocks.", low=1, high=1024)
    n_heads: int = setting(int, "Attention heads per block; divides d_model.", low=1, high=1024)
    d_model: int = setting(int, "Width of the residual stream.", low=1, high=65536)
    d_mlp: int | tuple[int, ...] = setting(
        int,
        "Hidden units of each MLP; one number, or one per layer.",
        low=1,
        high=1 << 22,
        per_layer=True,
    )
    n_ctx: int = setting(int, "Longest sequence, in tokens.", low=1, high=1 << 20)
    d_vocab: int = setting(int, "Size of the vocabulary, in tokens.", low=1, high=1 << 22)
    bias: bool = setting(bool, "Biases, in linear maps and layer norms.", default=True)
    init: str = setting(
        str,
        "Initial weights: GPT-2's (0.02, residual projections scaled down by depth) or NanoDO's "
        "(Xavier, embeddings 1/sqrt(d_model)).",
        default="gpt2",
        choices=("gpt2", "nanodo"),
    )
    init_embed: float = setting(
        float, "Factor on both initial embeddings.", default=1.0, low=0, high=1e3
    )
    init_w_in: float = setting(
        float, "Factor on the initial W_in of every MLP.", default=1.0, low=0, high=1e3
    )
    ln_eps: float = setting(float, "Layer norm's epsilon.", default=1e-5, low=1e-12, high=1.0)
    act_fn: str = setting(
        str,
        "Activation function of the MLPs.",
        default="relu",
        choices=act_fn_names(),
    )
    act_k: int = setting(
        int, "Hidden units that topk keeps at each token.", default=64, low=1, high=1 << 22
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_model % self.n_heads:
            raise UserError(
                f"n_heads: {self.n_heads} does not divide d_model {self.d_model}; "
                "choose one that does"
            )
        if isinstance(self.d_mlp, tuple) and len(self.d_mlp) != self.n_layers:
            raise UserError(
                f"d_mlp: {len(self.d_mlp)} numbers for {self.n_layers} layers; "
                "give one number, or one per layer"
            )
        if "act_k" in act_fn_settings(self.act_fn) and self.act_k > min(self.mlp_widths):
            raise UserError(
                f"act_k: {self.act_k} units cannot be kept of d_mlp {min(self.mlp_widths)}; "
                "choose a smaller one"
            )

    @property
    def activation(self) -> ActFn:
        """The activation function ``act_fn``, with its settings filled in."""
        return activation_function(self.act_fn, **vars(self))

    @property
    def d_head(self) -> int:
        """D, the width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def mlp_widths(self) -> tuple[int, ...]:
        """F of each layer, ``(L,)``."""
        if isinstance(self.d_mlp, tuple):
            return self.d_mlp
        return (self.d_mlp,) * self.n_layers


@dataclass(frozen=True)
class TextConfig(Checked):
    """What is read, and how it becomes tokens.

    >>> TextConfig().corpus
    'stdlib'
    """

    corpus: str = setting(
        str,
        "'stdlib' (the source of Python's standard library), or any UTF-8 file or folder.",
        default="stdlib",
    )
    tokenizer: str = setting(
        str,
        "'bpe' (byte-level, trained on the corpus) or 'bytes'.",
        default="bpe",
        choices=("bpe", "bytes"),
    )
    val_fraction: float = setting(
        float, "Share of the corpus held out for validation.", default=0.1, low=0.001, high=0.5
    )
    limit_mb: float = setting(
        float,
        "Read about this many MB of the corpus; 0: all of it. A preset's own limit is for 'stdlib' "
        "alone.",
        default=0.0,
        low=0,
        high=1e9,
    )


@dataclass(frozen=True)
class TrainConfig(Checked):
    """How a model is trained and watched.

    >>> TrainConfig(steps=100).schedule
    'cosine'
    """

    steps: int = setting(int, "Optimizer steps.", default=700, low=1, high=1 << 31)
    batch_size: int = setting(int, "Sequences per step.", default=8, low=1, high=1 << 20)
    micro_batches: int = setting(
        int,
        "Parts a step's batch is computed in, one after the other, to save memory; "
        "divides batch_size.",
        default=1,
        low=1,
        high=1 << 20,
    )
    seed: int = setting(
        int, "Seed of initial weights and batch order.", default=0, low=0, high=2**63 - 1
    )
    data_seed: int = setting(
        int, "Seed of batch order alone; -1: the same as seed.", default=-1, low=-1, high=2**63 - 1
    )
    learning_rate: float = setting(float, "Peak learning rate.", default=5e-3, low=0, high=10)
    warmup_steps: int = setting(
        int, "Steps of linear warm-up from 0.", default=50, low=0, high=1 << 31
    )
    schedule: str = setting(
        str, "Learning rate after the warm-up.", default="cosine", choices=("cosine", "constant")
    )
    final_lr: float = setting(
        float, "Where the cosine ends, as a share of the peak.", default=0.1, low=0, high=1
    )
    optimizer: str = setting(str, "Update rule.", default="adamw", choices=tuple(OPTIMIZERS))
    momentum: float = setting(
        float, "Share of the last direction that sgd_momentum keeps.", default=0.9, low=0, high=1
    )
    beta1: float = setting(float, "Adam's decay of the mean.", default=0.9, low=0, high=0.999999)
    beta2: float = setting(
        float, "Adam's decay of the square.", default=0.95, low=0, high=0.99999999
    )
    adam_eps: float = setting(float, "Adam's epsilon.", default=1e-8, low=1e-30, high=1)
    weight_decay: float = setting(
        float, "Decoupled decay, on matrices only.", default=0.1, low=0, high=10
    )
    clip_norm: float = setting(
        float, "Clip the gradient to this global norm; 0: never.", default=1.0, low=0, high=1e9
    )
    l1: float = setting(
        float,
        "Weight of an L1 penalty on the hidden activations: their sizes, summed over units and "
        "layers, mean over tokens.",
        default=0.0,
        low=0,
        high=1e6,
    )
    swap_batch: tuple[str, ...] = setting(
        str,
        "Another step's batch, as in 120=5120: at step 120 train on that of step 5120, which may "
        "lie beyond the last one.",
        default=(),
        several=True,
    )
    intervene: tuple[str, ...] = setting(
        str,
        'What is done to the updates, as in "freeze params=embed.*". There are '
        f"{', '.join(INTERVENTIONS)}; tutorials/interventions.md has their settings.",
        default=(),
        several=True,
    )
    probe_every: int = setting(
        int,
        "After step 512, probe (and keep weights) every this many steps; before it at "
        "0, 1, 2, 4, ..., 512.",
        default=50,
        low=1,
        high=1 << 31,
    )
    probe_tokens: int = setting(
        int, "Validation tokens of a probe.", default=8192, low=1, high=1 << 30
    )
    history_every: int = setting(
        int,
        "Every this many steps, write the state of every hidden unit to history/, for "
        "minirelu death; 0: never.",
        default=0,
        low=0,
        high=1 << 31,
    )
    history_tokens: int = setting(
        int,
        "Validation tokens, none of them in the probe, that confirm silence in a history.",
        default=16384,
        low=1,
        high=1 << 30,
    )
    snapshot_budget_gb: float = setting(
        float, "Disk for weights kept along the way; fewer are kept beyond it.",
        default=2.0, low=0, high=1e6,
    )  # fmt: skip
    keep_optimizer_at: tuple[int, ...] = setting(
        int,
        "Steps whose weights and optimizer state stay on disk, to branch off there "
        "(train --from RUN --at STEP).",
        default=(),
        low=0,
        high=1 << 31,
        several=True,
    )
    compute: str = setting(
        str,
        "Who computes: 'reference' (the NumPy of model/, and nothing else), or the kernels: "
        "'dense' (all hidden units), 'sparse' (those that are on), 'auto' (what is faster, by "
        "layer and step).",
        default="auto",
        choices=COMPUTE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.micro_batches:
            raise UserError(
                f"micro_batches: {self.micro_batches} does not divide batch_size "
                f"{self.batch_size}; choose one that does"
            )
        parse_interventions(self.intervene)  # raises where one is wrong
        self.batch_step(1)  # and so does this

    def batch_step(self, step: int) -> int:
        """Which step's batch is trained on at a step: its own, unless it is swapped.

        >>> TrainConfig(swap_batch=("120=5120",)).batch_step(120)
        5120
        """
        swaps = {}
        for text in self.swap_batch:
            at, equals, other = text.partition("=")
            if not (equals and at.isdecimal() and other.isdecimal() and int(at) and int(other)):
                raise UserError(f"swap_batch: {one_line(text)} is not like 120=5120")
            swaps[int(at)] = int(other)
        return swaps.get(step, step)

    @property
    def batch_seed(self) -> int:
        """Seed of the order in which batches come."""
        return self.seed if self.data_seed < 0 else self.data_seed


# What `plain` is, beside the defaults above; another preset says where it differs from `plain`.
_PLAIN: dict[str, dict[str, Any]] = {
    "model": dict(
        n_layers=6, n_heads=4, d_model=128, d_mlp=2048, n_ctx=256, d_vocab=4096, init="nanodo"
    ),
    "text": {},
    "train": {},
}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Seconds: tests, demos.
    "tiny": {
        "model": dict(n_layers=2, n_heads=2, d_model=32, d_mlp=128, n_ctx=64, d_vocab=512),
        "text": dict(limit_mb=1.0),
        "train": dict(steps=400, warmup_steps=20, learning_rate=1e-2),
    },
    # Minutes on two cores: the default. Shows what such a time can of the paper's figures 1, 2, 5.
    "small": {
        "model": dict(d_model=64, d_vocab=1024, bias=False),
        "train": dict(steps=1400, learning_rate=1e-2),
    },
    # What most measurements in tutorials/ were made with.
    "plain": {},
    # A first layer that goes quiet, in a minute: an L1 penalty, and small initial weights.
    "quiet": {
        "model": dict(
            n_layers=4, n_heads=2, d_model=32, n_ctx=128, d_vocab=512, init_embed=0.2, init_w_in=0.2
        ),
        "train": dict(steps=500, warmup_steps=20, learning_rate=1e-2, schedule="constant", l1=1e-4),
    },
    # Four times the hidden units.
    "wide": {"model": dict(d_mlp=8192)},
    # The width of Wild & Anderson, 8192 tokens a step.
    "paper": {
        "model": dict(d_mlp=32768, init="gpt2"),
        "train": dict(batch_size=32, micro_batches=8, learning_rate=2e-3, probe_every=100),
    },
}
SECTIONS: dict[str, type] = {"model": ModelConfig, "text": TextConfig, "train": TrainConfig}
# Top-level TOML keys that are not settings: the preset to start from, and what a run wrote down.
_NOT_SETTINGS = ("preset", "made_with", "parent")


@dataclass(frozen=True)
class Config:
    """All settings of a run: its model, its text, its training.

    >>> config = Config.build(preset="tiny", options={"train": {"steps": 10}})
    >>> config.model.d_mlp, config.train.steps
    (128, 10)
    >>> Config.from_toml(config.to_toml()) == config
    True
    """

    model: ModelConfig
    text: TextConfig
    train: TrainConfig

    def __post_init__(self) -> None:
        for intervention in parse_interventions(self.train.intervene):
            intervention.check(self.model)

    @classmethod
    def build(
        cls,
        preset: str | None = None,
        file: str | Path | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Config:
        """Combine the sources of settings: preset, then file, then options; the later one wins.

        Parameters
        ----------
        preset
            a key of ``PRESETS``; without it the file's own ``preset``, or ``small``.
        file
            a TOML file with the sections ``[model]``, ``[text]`` and ``[train]``.
        options
            section name to field name to value.

        Raises
        ------
        UserError
            naming the file, and the wrong key or value.
        """
        tables: Mapping[str, Any] = {} if file is None else read_toml(file)
        where = "" if file is None else f"{shown(file)}: "
        if preset is None:
            preset = tables.get("preset", "small")
        if not isinstance(preset, str) or preset not in PRESETS:
            known = f"{', '.join(PRESETS)}{nearest(str(preset), PRESETS)}"
            raise UserError(f"unknown preset {one_line(repr(preset))}; there are {known}")

        tables = _with_current_names(tables)
        _refuse_unknown(tables, where)
        below = {s: {**_PLAIN[s], **PRESETS[preset].get(s, {})} for s in SECTIONS}
        with_file = {s: {**below[s], **tables.get(s, {})} for s in SECTIONS}
        given = {s: {**tables.get(s, {}), **(options or {}).get(s, {})} for s in SECTIONS}
        if given["text"].get("corpus", TextConfig.corpus) != TextConfig.corpus:
            below["text"].pop("limit_mb", None)  # a preset's limit is for the default corpus
        with_options = {s: {**below[s], **given[s]} for s in SECTIONS}
        try:
            return cls.from_tables(with_options)
        except UserError:
            cls.from_tables(with_file, where)  # if the file alone is wrong, it is named
            raise

    @classmethod
    def from_toml(cls, text: str) -> Config:
        """Read back exactly what :meth:`to_toml` wrote."""
        return cls.from_tables(tomllib.loads(text))

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], where: str = "") -> Config:
        """Make a Config from complete tables, as a run folder holds them."""
        tables = _with_current_names(tables)
        _refuse_unknown(tables, where)
        parts = {}
        for section, kind in SECTIONS.items():
            try:
                parts[section] = kind(**tables.get(section, {}))
            except TypeError:
                raise UserError(f"{where}[{section}] is not complete") from None
            except UserError as e:
                raise UserError(f"{where}{e}") from None
        try:
            return cls(**parts)
        except UserError as e:
            raise UserError(f"{where}{e}") from None

    def tables(self) -> dict[str, dict[str, Any]]:
        """All settings as plain values, by section."""
        return {
            section: {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in vars(getattr(self, section)).items()
            }
            for section in SECTIONS
        }

    def to_toml(self, **extra: Mapping[str, Any]) -> str:
        """Write all settings as TOML; ``extra`` tables follow them."""
        import tomli_w

        return tomli_w.dumps({**self.tables(), **extra})

    def differences(self, other: Config) -> list[str]:
        """Name the settings in which ``other`` differs: ``["train.steps: 600, not 700"]``."""
        own, others = self.tables(), other.tables()
        return [
            f"{section}.{name}: {value!r}, not {others[section][name]!r}"
            for section, table in own.items()
            for name, value in table.items()
            if others[section][name] != value
        ]


def _with_current_names(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rename what 0.1 wrote: ``compute`` was ``mlp`` then, and ``reference`` was ``numpy``."""
    train = tables.get("train")
    if not isinstance(train, Mapping) or "mlp" not in train:
        return tables
    renamed = {"compute" if key == "mlp" else key: value for key, value in train.items()}
    if renamed["compute"] == "numpy":
        renamed["compute"] = "reference"
    return {**tables, "train": renamed}


def _refuse_unknown(tables: Mapping[str, Any], where: str) -> None:
    """Raise for a section or key that is not a setting, naming the nearest one that is."""
    for section, table in tables.items():
        if section in _NOT_SETTINGS:
            continue
        if section not in SECTIONS:
            home = [s for s, kind in SECTIONS.items() if section in _names(kind)]
            hint = f" (it belongs under [{home[0]}])" if home else nearest(section, SECTIONS)
            raise UserError(f"{where}unknown section or key {one_line(repr(section))}{hint}")
        if not isinstance(table, Mapping):
            raise UserError(f"{where}{section} must be a section: [{section}]")
        for key in table:
            if key not in _names(SECTIONS[section]):
                near = nearest(key, _names(SECTIONS[section]))
                raise UserError(f"{where}[{section}] has no key {one_line(repr(key))}{near}")


def _names(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


def read_toml(file: str | Path) -> dict[str, Any]:
    """Read a TOML file, or raise a :class:`UserError` that names it."""
    if os.path.exists(file) and not os.path.isfile(file):
        raise UserError(f"cannot read the settings file {shown(file)}: it is not a file")
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise UserError(f"cannot read the settings file {shown(file)}: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{shown(file)} is not valid TOML: {one_line(e)}") from None
