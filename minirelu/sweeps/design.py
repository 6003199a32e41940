"""Designs: which combinations of settings a sweep trains, when the whole grid would be too many."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.errors import UserError, shown
from minirelu.runs.files import explained
from minirelu.sweeps.sweep import parse_value, section_of

Row = tuple[Any, ...]


def signs_of_fraction(n_factors: int, n_runs: int) -> np.ndarray:  # (n_runs, n_factors)
    """Return a two-level fractional factorial design: +1 the high level, -1 the low one.

    The first log2(n_runs) factors make a whole grid; each further one is the product of an odd
    number of those (Box & Hunter 1961), so that no main effect is mixed with an effect of two
    factors together (resolution IV). Up to n_runs / 2 factors fit. Where there are more, products
    of even numbers follow (resolution III).

    Parameters
    ----------
    n_factors : int
    n_runs : int
        a power of two, at least two more than ``n_factors``.

    Raises
    ------
    UserError
        the runs are not a power of two, or too few, or more than the whole grid.

    Examples
    --------
    >>> signs_of_fraction(4, 8).T
    array([[-1, -1, -1, -1,  1,  1,  1,  1],
           [-1, -1,  1,  1, -1, -1,  1,  1],
           [-1,  1, -1,  1, -1,  1, -1,  1],
           [-1,  1,  1, -1,  1, -1, -1,  1]])
    """
    basic = n_runs.bit_length() - 1
    if n_runs < 4 or n_runs != 1 << basic:
        raise UserError(f"a fraction of {n_runs} runs is not possible; choose 4, 8, 16, 32, ...")
    if not basic <= n_factors <= n_runs - 2:  # one run more, so that effects have intervals
        raise UserError(
            f"a fraction of {n_runs} runs is for {basic} to {n_runs - 2} settings that vary, and "
            f"{n_factors} do; choose another number of runs"
        )
    grid = np.array(list(itertools.product((-1, 1), repeat=basic)))  # (n_runs, basic)
    sizes = sorted(range(1, basic + 1), key=lambda size: (size != 1, size % 2 == 0, size))
    words = [word for size in sizes for word in itertools.combinations(range(basic), size)]
    return np.stack([grid[:, list(word)].prod(axis=1) for word in words[:n_factors]], axis=1)


def fraction(vary: Mapping[str, Sequence[Any]], n_runs: int) -> tuple[Row, ...]:
    """Choose ``n_runs`` combinations of settings with two values each, by a balanced design.

    >>> fraction({"d_mlp": (64, 128), "bias": (False, True)}, 4)  # the whole grid
    ((64, False), (64, True), (128, False), (128, True))
    """
    for field, values in vary.items():
        if len(values) != 2:
            raise UserError(
                f"a fraction takes two values of each setting; {field} has {len(values)}"
            )
    signs = signs_of_fraction(len(vary), n_runs)
    return tuple(
        tuple(values[int(sign > 0)] for values, sign in zip(vary.values(), row, strict=True))
        for row in signs
    )


def read_design(file: str | Path) -> tuple[dict[str, tuple[Any, ...]], tuple[Row, ...]]:
    """Read a table of runs (CSV): a column for each setting that varies, a row for each run.

    Returns
    -------
    vary : dict
        each setting and its values, in the order in which they first occur.
    rows : tuple of tuple
        their combinations, in the order of the file.

    Raises
    ------
    UserError
        naming the file, and the column or the row that is wrong.
    """
    where = shown(file)
    with (
        explained(f"reading the design {where}"),
        open(file, encoding="utf-8-sig", newline="") as f,
    ):
        try:
            table = [row for row in csv.reader(f) if any(map(str.strip, row))]
        except (csv.Error, UnicodeDecodeError) as e:
            raise UserError(f"{where} is not a table in CSV: {e}") from None
    if len(table) < 2:
        raise UserError(f"{where} needs a line with names of settings, and a line for each run")
    names = [name.strip().replace("-", "_") for name in table[0]]
    for name in names:
        try:
            section_of(name)
        except UserError as e:
            raise UserError(f"{where}: {e}") from None
    if len(set(names)) < len(names):
        raise UserError(f"{where} has two columns of one setting")
    rows = []
    for i, row in enumerate(table[1:], 1):
        if len(row) != len(names):
            raise UserError(f"{where}: run {i} has {len(row)} values for {len(names)} settings")
        rows.append(tuple(parse_value(n, v.strip()) for n, v in zip(names, row, strict=True)))
        if rows[-1] in rows[:-1]:
            raise UserError(f"{where}: run {i} is in it already, as run {rows.index(rows[-1]) + 1}")
    vary = {
        name: tuple(dict.fromkeys(values))
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }
    return vary, tuple(rows)
