"""What was written down of every hidden unit while a run trained, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minirelu.errors import UserError, shown
from minirelu.runs.history import FAST, SIZES, SLOW, read_history
from minirelu.runs.run import Run
from minirelu.training.schedule import history_steps


@dataclass
class LayerHistory:
    """Of one layer with F units, at P records; each as small as on disk.

    ``tokens_on``, ``sequences_on``, ``confirm_on`` : (P, F) int, at how many tokens and sequences
    of the probe, and at how many sequences of the confirming text, each unit was on.
    ``margin`` : (P, F) float16, its largest pre-activation over the probe.
    ``slow`` : (Q, F) float16 each, at ``History.slow_steps``: ``bias``, ``norm`` of W_in's row,
    ``alignment`` (cosine between that row and the mean MLP input), ``mean_post`` (mean activation),
    ``second_moment`` (log10 of the root of the mean of Adam's v over the row; Adam only).
    """

    tokens_on: np.ndarray
    sequences_on: np.ndarray
    confirm_on: np.ndarray
    margin: np.ndarray
    slow: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def silent(self) -> np.ndarray:
        """Whether each unit was on at no token of the probe, (P, F) bool."""
        return self.tokens_on == 0


@dataclass
class History:
    """Where every hidden unit of a run stood, at evenly spaced steps.

    Attributes
    ----------
    steps, slow_steps : (P,) and (Q,) int64
        of all records, and of every fourth one, which holds more.
    n_tokens, n_sequences : int
        of the probe.
    n_confirm_tokens, n_confirm_sequences : int
        of the text that confirms silence, which shares no token with the probe.
    layers : list of L LayerHistory
    """

    run: Run
    steps: np.ndarray
    slow_steps: np.ndarray
    n_tokens: int
    n_sequences: int
    n_confirm_tokens: int
    n_confirm_sequences: int
    layers: list[LayerHistory]

    @classmethod
    def of(cls, run: Run, at_least: int = 1) -> History:
        """Read ``history/``.

        200 records of 6 x 32768 units take about 350 MB.

        Parameters
        ----------
        run : Run
        at_least : int
            records that are needed.

        Raises
        ------
        UserError
            the run was trained without ``history_every``, or has too few records; a damaged file,
            by its name.
        """
        grid = [s for s in history_steps(run.settings.train) if run.history_file(s).is_file()]
        if not grid:
            raise UserError(
                f"{shown(run.folder)} has no history of its units; train one with "
                "--history-every 10"
            )
        every = run.settings.train.history_every
        if grid != list(range(0, grid[-1] + 1, every)):
            missing = next(s for s in range(0, grid[-1], every) if s not in grid)
            raise UserError(f"{shown(run.history_file(missing))} is missing")
        if len(grid) < at_least:
            raise UserError(
                f"{shown(run.folder)} has {len(grid)} records of its units, and this needs "
                f"{at_least}; train more steps, or with a smaller --history-every than {every}"
            )
        return cls._read(run, grid)

    @classmethod
    def _read(cls, run: Run, grid: list[int]) -> History:
        L = run.config.n_layers
        first = read_history(run.history_file(grid[0]), run.config)
        sizes = {name: int(first[name]) for name in SIZES}
        arrays = {
            f"{name}.{l}": np.empty((len(grid), *first[f"{name}.{l}"].shape), kind)
            for l in range(L)
            for name, kind in ((name, first[f"{name}.{l}"].dtype) for name in FAST)
        }
        slow_steps: list[int] = []
        slow: dict[str, list[np.ndarray]] = {}
        for i, step in enumerate(grid):
            file = run.history_file(step)
            record = read_history(file, run.config) if i else first
            if any(record[name] != sizes[name] for name in SIZES):
                raise UserError(f"{shown(file)} is of another probe than the records before it")
            for key, array in arrays.items():
                array[i] = record[key]
            if "bias.0" in record:
                slow_steps.append(step)
                for key in (f"{name}.{l}" for name in SLOW for l in range(L)):
                    if key in record:
                        slow.setdefault(key, []).append(record[key])
        layers = [
            LayerHistory(
                **{name: arrays[f"{name}.{l}"] for name in FAST},
                slow={n: np.stack(slow[f"{n}.{l}"]) for n in SLOW if f"{n}.{l}" in slow},
            )
            for l in range(L)
        ]
        steps, slow_at = np.array(grid, np.int64), np.array(slow_steps, np.int64)
        return cls(run, steps, slow_at, layers=layers, **sizes)
