"""The run folder: how it is made, and read access to everything in it."""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.config import Config, ModelConfig, read_toml
from minirelu.errors import UserError, command, printable, shown
from minirelu.model.parameters import Parameters
from minirelu.runs.checkpoint import checkpoint_steps, load_params
from minirelu.runs.files import read_json
from minirelu.runs.formats import check_metrics, read_counts
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.measures import Measure, probe_measures
from minirelu.text.batches import make_probe, make_second_probe, open_tokens
from minirelu.text.tokenizer import Tokenizer

BASELINES = ("uniform", "unigram", "bigram")


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
            where there is no run, its settings are damaged, or a later version made it.
        """
        folder = Path(folder)
        file = folder / "config.toml"
        if not file.is_file():
            raise UserError(f"no run in {shown(folder.as_posix())}: it has no config.toml")
        check_metrics(folder / "metrics.jsonl")  # before settings that only the later version has
        return cls(folder, Config.from_tables(read_toml(file), where=f"{shown(file)}: "))

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self.settings.model

    @property
    def made_with(self) -> dict[str, Any]:
        """Versions and platform that the run was made with."""
        table = read_toml(self.folder / "config.toml").get("made_with", {})
        return table if isinstance(table, dict) else {}

    @property
    def code(self) -> list[tuple[int, str]]:
        """Digests of the code that trained it, each with the step it began at.

        More than one where code was changed before the run was resumed.
        """
        begun_with = [(0, str(self.made_with.get("code", "unknown")))]
        return begun_with + [(r["step"], str(r["code"])) for r in self.metrics("code")]

    @property
    def parent(self) -> dict[str, Any] | None:
        """Of a branch: the run and step it goes on from, and the settings it changed."""
        return read_toml(self.folder / "config.toml").get("parent")

    @property
    def name(self) -> str:
        """The folder's own name, safe to show."""
        return printable(self.folder.resolve().name)

    @property
    def corpus(self) -> dict[str, Any]:
        """What was read: counts, SHA-256, and the baselines in nats per token."""
        file = self.folder / "corpus.json"
        facts = read_json(file)
        # 0.1 called them yardsticks
        facts = facts if isinstance(facts, dict) else {}
        losses = facts.get("baselines", facts.get("yardsticks"))
        losses = losses if isinstance(losses, dict) else {}
        whole = all(
            isinstance(facts.get(key), int)
            for part in ("train", "val")
            for key in (f"{part}_documents", f"{part}_bytes", f"{part}_tokens")
        )
        whole = whole and isinstance(facts.get("found_bytes", 0), int)
        if not whole or not all(isinstance(losses.get(m), float) for m in BASELINES):
            raise UserError(f"{shown(file)} is damaged: it is not complete")
        return {
            "corpus": "",
            "sha256": "",
            **facts,
            "baselines": {m: losses[m] for m in BASELINES},
        }

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        return Tokenizer.load(self.folder / "tokenizer.json")

    @cached_property
    def train_tokens(self) -> np.ndarray:
        """Training tokens, (n,), mapped from disk."""
        file = self.folder / "tokens" / "train.npy"
        tokens = open_tokens(file)
        if len(tokens) <= self.config.n_ctx:
            raise UserError(f"{shown(file)} is damaged: it has {len(tokens)} tokens only")
        return tokens

    @cached_property
    def probe_tokens(self) -> np.ndarray:
        """The probe, (sequences, n_ctx + 1): ``[:, :-1]`` the inputs, ``[:, 1:]`` the targets."""
        file = self.folder / "probe.npy"
        probe = np.array(open_tokens(file, ndim=2))
        if probe.shape[1] != self.config.n_ctx + 1:
            raise UserError(f"{shown(file)} is damaged: its sequences have another length")
        return probe

    @cached_property
    def confirming_tokens(self) -> np.ndarray:
        """Validation text that is not in the probe, like it (sequences, n_ctx + 1).

        Raises
        ------
        UserError
            the probe has taken all there is.
        """
        tokens = open_tokens(self.folder / "tokens" / "val.npy")
        n_ctx, wanted = self.config.n_ctx, self.settings.train.history_tokens
        sequences = make_second_probe(tokens, len(self.probe_tokens), wanted, n_ctx)
        if not len(sequences):
            raise UserError(
                f"a history needs held-out text beside the probe, which has taken all "
                f"{len(tokens)} tokens; give more text, or fewer --probe-tokens"
            )
        return sequences

    def held_out(self, n_tokens: int) -> np.ndarray:
        """Sequences of validation text, (S, n_ctx + 1), evenly spread over all there is.

        Raises
        ------
        UserError
            not one sequence.
        """
        tokens, T = open_tokens(self.folder / "tokens" / "val.npy"), self.config.n_ctx
        if n_tokens < T:
            raise UserError(
                f"--tokens: {n_tokens} is not allowed; a sequence of {shown(self.folder)} is {T} "
                "tokens"
            )
        if len(tokens) <= T:
            raise UserError(
                f"the text held out by {shown(self.folder)} is too short: {len(tokens)} tokens, "
                f"and a sequence of this model needs {T + 1}"
            )
        return make_probe(tokens, n_tokens, T)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def steps(self) -> list[int]:
        """Steps with weights on disk, in order."""
        return checkpoint_steps(self.checkpoints)

    def params(self, step: int | None = None) -> Parameters:
        """Return the weights of a step, or the latest ones.

        Raises
        ------
        ValueError
            naming the steps that have weights; or the damaged file.
        """
        steps = self.steps
        if not steps:
            raise UserError(f"{shown(self.folder)} has no checkpoint yet")
        if step is not None and step not in steps:
            available = ", ".join(map(str, steps))
            raise UserError(
                f"{shown(self.folder)} has no weights of step {step}; there are {available}"
            )
        return load_params(self.checkpoints, steps[-1] if step is None else step, self.config)

    def probes(self) -> list[dict[str, Any]]:
        """Return the records of all probes, in order of steps."""
        return self.metrics("probe")

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of one kind: ``train``, ``probe``, or ``code``.

        A last line that a crash cut short is left out.
        """
        file = self.folder / "metrics.jsonl"
        check_metrics(file)
        try:
            *lines, _ = file.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                if record["kind"] == kind:
                    _check_record(record, self.config.n_layers)
                    records.append(record)
            except (ValueError, TypeError, KeyError, RecursionError):
                raise UserError(f"{shown(file)}, line {number} is damaged") from None
        return records

    @property
    def has_history(self) -> bool:
        """Whether it was written down where every unit stood while it trained."""
        return any((self.folder / "history").glob("step_*.npz"))

    def history_file(self, step: int) -> Path:
        """``history/step_000123.npz``."""
        return self.folder / "history" / f"step_{step:06d}.npz"

    def counts_file(self, step: int) -> Path:
        """``counts/step_000123.npz``."""
        return self.folder / "counts" / f"step_{step:06d}.npz"

    def counts(self, step: int) -> UnitCounts:
        """Return the per-unit counts of the probe at a step."""
        return read_counts(self.counts_file(step), self.config)


def probes_of(run: Run) -> list[dict[str, Any]]:
    """All probes of a run, or an error that says there are none."""
    probes = run.probes()
    if not probes:
        raise UserError(
            f"{shown(run.folder)} has no probes yet; train it: "
            f"{command('train --resume', run.folder)}"
        )
    return probes


def measured(probe: dict[str, Any], measure: str, n_layers: int) -> list[float | None]:
    """Return a measure of a probe, layer by layer; None throughout where its record lacks it."""
    return probe.get(measure, [None] * n_layers)


def _check_record(record: dict[str, Any], n_layers: int) -> None:
    """Raise a ValueError, TypeError or KeyError where a record is not what training writes."""
    int(record["step"])
    if record["kind"] in ("train", "probe"):
        float(record["loss" if record["kind"] == "train" else "val_loss"])
        int(record["tokens"])
    if record["kind"] == "probe":
        int(record["probe_tokens"]), int(record["batch_tokens"])
        for measure in probe_measures():
            # an earlier version may have written fewer measures
            values = record.get(measure.name, [None] * n_layers)
            if len(values) != n_layers or not all(v is None or _fits(v, measure) for v in values):
                raise ValueError(measure.name)


def _fits(value: float, measure: Measure) -> bool:
    """Whether a number is one that a measure can have."""
    return 0 <= value <= 1 if measure.is_share else math.isfinite(value)
