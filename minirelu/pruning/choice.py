"""Which units of a run stay: a criterion, and how many go by a share or by what it may cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minirelu.errors import UserError
from minirelu.pruning.curves import quality
from minirelu.pruning.needs import units_needed
from minirelu.pruning.pruned_run import second_moment
from minirelu.pruning.rankings import Evidence, evidence, keep, keep_widths, scores
from minirelu.pruning.texts import trained_on
from minirelu.runs.run import Run


@dataclass(frozen=True)
class Choice:
    """How units are chosen.

    ``by`` : a criterion. ``scope`` : "each", "global", or a layer. ``tokens`` : of the text that
    units are ranked on, and of the held-out text. And one of the two: ``share`` of the units to
    remove, or ``within``, the rise in held-out loss that is allowed, as a share of it.
    """

    by: str
    scope: str | int
    tokens: int
    share: float | None = None
    within: float | None = None

    def __post_init__(self) -> None:
        if (self.share is None) == (self.within is None):
            raise UserError("how many units go: give --share (of the units) or --within (percent)")
        if self.share is not None and not 0 <= self.share <= 1:
            raise UserError(f"--share: {self.share} is not allowed; it must be from 0 to 1")
        if self.within is not None and not 0 <= self.within < 1e6:
            raise UserError(f"--within: {100 * self.within:g} is not allowed; it must be 0 or more")

    def evidence(self, run: Run, step: int) -> Evidence:
        """Read the text that units are ranked on."""
        return evidence(
            run.params(step), trained_on(run, self.tokens), run.config,
            run.settings.train.compute, second_moment(run, step),
        )  # fmt: skip

    def keep(self, run: Run, found: Evidence) -> list[np.ndarray]:
        """Masks of the units that stay, (F,) bool for each layer."""
        seed, compute = run.settings.train.seed, run.settings.train.compute
        of_layers = scores(found, self.by)
        if self.share is not None:
            return keep(of_layers, self.share, self.scope, seed)
        assert self.within is not None
        text = run.held_out(self.tokens)
        base = quality(found.params, text, run.config, compute).loss
        widths = units_needed(found.params, of_layers, text, self.scope, base, self.within, compute)
        return keep_widths(of_layers, widths, seed)
