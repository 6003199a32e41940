"""One row of the table that ``minirelu check`` prints."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One comparison.

    ``error`` is the length of the difference over the length of what is expected; ``look_at`` are
    the files in which it is computed.
    """

    operation: str
    tensor: str
    error: float
    limit: float
    look_at: str

    @property
    def fine(self) -> bool:
        """Whether the error is within the limit; a NaN is not."""
        return self.error <= self.limit


def relative_error(actual: np.ndarray, expected: np.ndarray, least: float = 0.0) -> float:
    """Length of the difference over that of what is expected, or over ``least`` if that is more.

    >>> relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
    0.1
    """
    actual, expected = (np.asarray(a, np.float64) for a in (actual, expected))
    size = max(float(np.linalg.norm(expected)), least)
    difference = float(np.linalg.norm(actual - expected))
    return difference / size if size else difference
