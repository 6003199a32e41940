"""The run folder: how it is made, and read access to everything in it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.config import Config, ModelConfig, read_toml
from minirelu.errors import UserError, one_line
from minirelu.model.parameters import Parameters
from minirelu.sparsity.counts import UnitCounts
from minirelu.text.batches import make_probe, open_tokens, write_tokens, yardsticks
from minirelu.text.corpus import open_corpus, shown
from minirelu.text.tokenizer import Tokenizer
from minirelu.training.checkpoint import checkpoint_steps, load_params
from minirelu.training.files import explained, read_arrays, read_json, replacing_folder, write_text


class Run:
    """Read access to a run folder.

    Attributes
    ----------
    folder : Path
    settings : Config
        everything needed to do the run again.
    config : ModelConfig
        the model's part of it.

    Examples
    --------
    >>> Run.open("no/such/folder")
    Traceback (most recent call last):
    minirelu.errors.UserError: no run in no/such/folder: it has no config.toml
    """

    def __init__(self, folder: Path, settings: Config) -> None:
        self.folder = folder
        self.settings = settings

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a run folder.

        Raises
        ------
        ValueError
            where there is no run, or its settings are damaged.
        """
        folder = Path(folder)
        file = folder / "config.toml"
        if not file.is_file():
            raise UserError(f"no run in {shown(folder.as_posix())}: it has no config.toml")
        return cls(folder, Config.from_tables(read_toml(file), where=f"{shown(file)}: "))

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self.settings.model

    @property
    def made_with(self) -> dict[str, Any]:
        """Versions and platform that the run was made with."""
        return read_toml(self.folder / "config.toml").get("made_with", {})

    @property
    def corpus(self) -> dict[str, Any]:
        """What was read: counts, SHA-256, and the yardsticks in nats per token."""
        return read_json(self.folder / "corpus.json")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        return Tokenizer.load(self.folder / "tokenizer.json")

    @cached_property
    def train_tokens(self) -> np.ndarray:
        """Training tokens, (n,), mapped from disk."""
        return open_tokens(self.folder / "tokens" / "train.npy")

    @cached_property
    def probe_tokens(self) -> np.ndarray:
        """The probe, (sequences, n_ctx + 1): ``[:, :-1]`` the inputs, ``[:, 1:]`` the targets."""
        return np.array(open_tokens(self.folder / "probe.npy"))

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def steps(self) -> list[int]:
        """Steps of which there are weights, in order."""
        return checkpoint_steps(self.checkpoints)

    def params(self, step: int | None = None) -> Parameters:
        """Return the weights of a step, or the latest ones.

        Raises
        ------
        ValueError
            naming the steps there are; or the damaged file.
        """
        steps = self.steps
        if not steps:
            raise UserError(f"{shown(self.folder)} has no checkpoint yet")
        if step is not None and step not in steps:
            there = ", ".join(map(str, steps))
            raise UserError(
                f"{shown(self.folder)} has no weights of step {step}; there are {there}"
            )
        return load_params(self.checkpoints, steps[-1] if step is None else step, self.config)

    def probes(self) -> list[dict[str, Any]]:
        """Return the records of all probes, in order of steps."""
        return self.metrics("probe")

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of one kind, ``train`` or ``probe``.

        A last line that a crash cut short is left out.
        """
        try:
            text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        records = []
        lines = text.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            if number == len(lines) and not line.endswith("\n"):
                break
            try:
                record = json.loads(line)
            except ValueError:
                where = f"{shown(self.folder / 'metrics.jsonl')}, line {number}"
                raise UserError(f"{where} is damaged") from None
            if record.get("kind") == kind:
                records.append(record)
        return records

    def counts_file(self, step: int) -> Path:
        """``counts/step_000123.npz``."""
        return self.folder / "counts" / f"step_{step:06d}.npz"

    def counts(self, step: int) -> UnitCounts:
        """Return the per-unit counts of the probe at a step."""
        file = self.counts_file(step)
        try:
            return UnitCounts.from_arrays(read_arrays(file), self.config)
        except KeyError as e:
            raise UserError(f"{shown(file)} is damaged: it has no {one_line(e)}") from None


def made_with() -> dict[str, Any]:
    """Return versions and platform, for the record."""
    import numba

    import minirelu

    versions = {"minirelu": minirelu.__version__, "python": platform.python_version()}
    for package in ("numpy", "numba", "tokenizers", "safetensors"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    threads = int(numba.config.NUMBA_NUM_THREADS)
    return {**versions, "platform": platform.platform(), "threads": threads}


def refuse_taken(folder: Path) -> None:
    """Raise if a new run cannot be made at this place."""
    if (folder / "config.toml").exists():
        raise UserError(
            f"{shown(folder)} holds a run already; choose another --out, or go on with "
            f"minirelu train --resume {shown(folder)}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{shown(folder)} exists and is not an empty folder; choose another --out")


def create_run(settings: Config, folder: str | Path) -> Run:
    """Read the corpus, make tokenizer, tokens, probe and yardsticks, and write a new run folder.

    The folder appears when all of this is done. ``d_vocab`` in the run's settings is the number
    of tokens that the tokenizer really has, which a small text can make less than was asked for.

    Parameters
    ----------
    settings : Config
    folder : path
        must not exist, or be empty.

    Returns
    -------
    Run
        at step 0, without any checkpoint yet.

    Raises
    ------
    UserError
        for every way in which corpus, settings and folder can be wrong.
    """
    folder = Path(folder)
    with explained(f"making the run folder {shown(folder)}"):
        refuse_taken(folder)
        corpus = open_corpus(settings.text)
        facts = corpus.describe()
        tokenizer = Tokenizer.for_corpus(corpus, settings.text, settings.model.d_vocab)
        if folder.is_dir():
            folder.rmdir()  # it is empty
        with replacing_folder(folder) as new:
            (new / "tokens").mkdir()
            n_train = write_tokens(new / "tokens" / "train.npy", corpus.train, tokenizer)
            n_val = write_tokens(new / "tokens" / "val.npy", corpus.val, tokenizer)
            n_ctx = settings.model.n_ctx
            for part, n in (("training", n_train), ("validation", n_val)):
                if n < n_ctx + 1:
                    raise UserError(
                        f"the corpus {shown(settings.text.corpus)} is too small: {n} tokens for "
                        f"{part}, and n_ctx {n_ctx} needs {n_ctx + 1}; give more text or a "
                        "smaller n_ctx"
                    )
            model = dataclasses.replace(settings.model, d_vocab=tokenizer.size)
            settings = dataclasses.replace(settings, model=model)

            val_tokens = open_tokens(new / "tokens" / "val.npy")
            probe = make_probe(val_tokens, settings.train.probe_tokens, n_ctx)
            np.save(new / "probe.npy", probe, allow_pickle=False)
            train_tokens = open_tokens(new / "tokens" / "train.npy")
            facts |= {
                "train_tokens": n_train,
                "val_tokens": n_val,
                "yardsticks": yardsticks(train_tokens, probe, tokenizer.size),
            }
            del val_tokens, train_tokens  # Windows does not rename what is mapped
            write_text(new / "tokenizer.json", tokenizer.to_json())
            write_text(new / "corpus.json", json.dumps(facts, indent=1))
            write_text(new / "config.toml", settings.to_toml(made_with=made_with()))
            for name in ("checkpoints", "counts", "figures"):
                (new / name).mkdir()
            (new / "metrics.jsonl").touch()
    return Run(folder, settings)


def free_folder(name: str) -> Path:
    """Return ``runs/name``, or ``runs/name-2`` and so on where that is taken."""
    folder, i = Path("runs", name), 1
    while os.path.lexists(folder):
        i += 1
        folder = Path("runs", f"{name}-{i}")
    return folder
