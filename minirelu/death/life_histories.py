"""Deaths and returns of hidden units, read from regular records of who was on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError
from minirelu.intervals import Estimate, share_interval


class Deaths(NamedTuple):
    """Every death of a layer, ordered by unit, then time; (n,) each, records by their index.

    ``unit`` : which. ``low``, ``high`` : it died after record low, at which it was last on, and by
    record high, at which it was silent. ``back`` : the record at which it was on again; -1 never.
    """

    unit: np.ndarray
    low: np.ndarray
    high: np.ndarray
    back: np.ndarray


@dataclass(frozen=True)
class LifeHistories:
    """What became of each of a layer's F units over P records.

    Attributes
    ----------
    steps : int64 ndarray, (P,)
    successive, n_confirm : int
        the settings, as given to :func:`life_histories`.
    deaths : Deaths
    dead : bool ndarray, (P, F)
        whether a unit is dead at a record: it has died by then, and is not on again.
    first_on : int ndarray, (F,)
        index of the first record at which the probe had the unit on; -1 where none had.
    last_alive : int ndarray, (F,)
        index of the last record at which either text had the unit on; -1 where none had.
    unconfirmed : int ndarray, (F,)
        how often a unit was silent at ``successive`` records in a row while the confirming text,
        at the last of these, had it on.
    candidates : int
        all silences of that length, confirmed or not.
    """

    steps: np.ndarray
    successive: int
    n_confirm: int
    deaths: Deaths
    dead: np.ndarray
    first_on: np.ndarray
    last_alive: np.ndarray
    unconfirmed: np.ndarray
    candidates: int

    @property
    def born_silent(self) -> np.ndarray:
        """Whether each unit is silent at record 0, (F,) bool.

        When it fell silent is unknown, so it has no death before it was on for a first time.
        """
        return self.first_on != 0

    @property
    def died(self) -> np.ndarray:
        """Whether each unit died at all, (F,) bool."""
        return self.n_deaths > 0

    @property
    def n_deaths(self) -> np.ndarray:
        """Deaths of each unit, re-deaths included, (F,) int."""
        return np.bincount(self.deaths.unit, minlength=len(self.first_on))

    @property
    def n_revivals(self) -> np.ndarray:
        """How often each unit came back from a death, (F,) int."""
        return np.bincount(self.deaths.unit[self.deaths.back >= 0], minlength=len(self.first_on))

    @cached_property
    def first(self) -> Deaths:
        """Each unit's first death: ``unit`` is 0 to F - 1, the others -1 where it never died."""
        unit, where = np.unique(self.deaths.unit, return_index=True)
        columns = np.full((3, len(self.first_on)), -1)
        for column, values in zip(columns, self.deaths[1:], strict=True):
            column[unit] = values[where]
        return Deaths(np.arange(len(self.first_on)), *columns)

    def step_of(self, record: np.ndarray) -> np.ndarray:
        """Return the steps of records given by index; -1 stays -1.

        With ``.first.low`` and ``.first.high``, the interval of first deaths; with
        ``.first.back``, first revivals.
        """
        return np.where(record >= 0, self.steps[record], -1)

    @property
    def false_death_rate(self) -> Estimate:
        """Share of the candidate deaths that the confirming text refutes; NaN without any."""
        k = int(self.unconfirmed.sum())
        if not self.candidates:
            return Estimate(float("nan"), 0.0, 1.0)
        low, high = share_interval(k, self.candidates)
        return Estimate(k / self.candidates, float(low), float(high))


def life_histories(
    steps: np.ndarray,
    tokens_on: np.ndarray,
    confirm_on: np.ndarray,
    n_confirm: int,
    successive: int = 3,
) -> LifeHistories:
    """Find every death and revival of a layer's units.

    A unit is *silent* at a record when it is on at no token of the probe. It is a *candidate* for
    death once it has been on and is then silent at ``successive`` records in a row. It has died if
    the confirming text, which is larger and shares nothing with the probe, agrees at the last of
    these: some time between the last record on and the first silent one. If that text disagrees,
    this is a false death; should the text agree at a later record of the same silence, the unit
    died between that record and the one before it. A *revival* is the first later record at which
    the unit is on.

    Parameters
    ----------
    steps : int ndarray, (P,)
        of the records, rising.
    tokens_on : int ndarray, (P, F)
        tokens of the probe at which each unit was on.
    confirm_on : int ndarray, (P, F)
        sequences (or tokens) of the confirming text with it on.
    n_confirm : int
        sequences of the confirming text; kept with the result.
    successive : int
        silent records in a row that make a candidate; 1 or more.

    Returns
    -------
    LifeHistories

    Raises
    ------
    UserError
        fewer than ``successive + 1`` records, or arrays that do not fit each other.

    Examples
    --------
    Unit 0 dies and revives, unit 1 is on in the other text, unit 2 is silent from the start:

    >>> on = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0], [5, 0, 0]])
    >>> other = np.array([[1, 1, 0], [1, 2, 0], [0, 2, 0], [9, 2, 0]])
    >>> lives = life_histories([0, 10, 20, 30], on, other, n_confirm=64, successive=2)
    >>> lives.deaths
    Deaths(unit=array([0]), low=array([0]), high=array([1]), back=array([3]))
    >>> lives.step_of(lives.first.high), lives.step_of(lives.first.back)
    (array([10, -1, -1]), array([30, -1, -1]))
    >>> lives.false_death_rate.value, lives.born_silent
    (0.5, array([False, False,  True]))
    """
    steps, tokens_on, confirm_on = np.asarray(steps), np.asarray(tokens_on), np.asarray(confirm_on)
    if successive < 1:
        raise UserError(f"successive: {successive!r} is not allowed; it must be 1 or more")
    if tokens_on.ndim != 2 or not tokens_on.shape == confirm_on.shape == (
        len(steps),
        *tokens_on.shape[1:],
    ):
        raise UserError(
            f"records of {len(steps)} steps, {tokens_on.shape} counts and {confirm_on.shape} "
            "confirming counts do not fit; all must have one row for each step"
        )
    P, F = tokens_on.shape
    if P <= successive:
        raise UserError(
            f"{P} records are too few for deaths confirmed by {successive} silent ones in a row; "
            f"{successive + 1} or more are needed: record the history more often"
        )
    silent, confirmed = tokens_on == 0, confirm_on == 0
    unit, start, end = spells(silent)
    candidate = (start > 0) & (end - start >= successive)
    unit, start, end = unit[candidate], start[candidate], end[candidate]

    # The first record from the last of `successive` on at which the confirming text agrees.
    records = np.arange(P, dtype=np.int32)[:, None]
    agrees = np.where(confirmed, records, np.int32(P))
    agrees = np.minimum.accumulate(agrees[::-1], axis=0)[::-1]
    at_once = start + successive - 1
    agreed = agrees[at_once, unit]
    died, late = agreed < end, agreed > at_once
    high = np.where(late, agreed, start)[died]
    back = np.where(end < P, end, -1)[died]
    deaths = Deaths(unit[died], high - 1, high, back)

    change = np.zeros((P + 1, F), np.int8)
    change[high, deaths.unit] = 1
    change[end[died], deaths.unit] = -1
    alive = ~(silent & confirmed)
    return LifeHistories(
        steps=steps,
        successive=successive,
        n_confirm=n_confirm,
        deaths=deaths,
        dead=change[:P].cumsum(axis=0, dtype=np.int8).astype(bool),
        first_on=np.where(silent.all(axis=0), -1, (~silent).argmax(axis=0)),
        last_alive=np.where(alive.any(axis=0), P - 1 - alive[::-1].argmax(axis=0), -1),
        unconfirmed=np.bincount(unit[late], minlength=F),
        candidates=len(unit),
    )


def spells(silent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find every longest stretch of records at which a unit is silent.

    Parameters
    ----------
    silent : bool ndarray, (P, F)

    Returns
    -------
    unit, start, end : int64 ndarrays, (n,)
        silent at records start to end - 1; ordered by unit, then time.

    Examples
    --------
    >>> spells(np.array([[1, 0], [0, 1], [1, 1]], bool))
    (array([0, 0, 1]), array([0, 2, 1]), array([1, 3, 3]))
    """
    P, F = silent.shape
    padded = np.zeros((F, P + 2), bool)
    padded[:, 1:-1] = silent.T
    edges = np.flatnonzero(padded[:, 1:] != padded[:, :-1])  # starts and ends in turn
    unit, record = np.divmod(edges, P + 1)
    return unit[::2], record[::2], record[1::2]
