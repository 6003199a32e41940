"""Memory that is taken once and used again in every step."""

from __future__ import annotations

import math

import numpy as np

from minirelu.config import ModelConfig
from minirelu.model.parameters import Parameters
from minirelu.threads import most_threads


class Workspace:
    """Arrays by name. Asking again for the same name and shape gives the same memory.

    Fresh memory is slow: the operating system hands it out page by page, at the first touch. A
    training step that takes its gigabyte anew each time spends more on that than on Adam.

    Memory that is never touched costs nothing, so arrays are as large as the worst case.

    Examples
    --------
    >>> ws = Workspace()
    >>> a = ws.array("dx", (2, 3), np.float32)
    >>> a is ws.array("dx", (2, 3), np.float32)
    True
    >>> ws.array("dx", (4, 3), np.float32) is a
    False
    """

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._parameters: dict[str, Parameters] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Return the array of that name; its content is whatever was left there."""
        a = self._arrays.get(name)
        if a is None or a.shape != shape or a.dtype != dtype:
            self._arrays.pop(name, None)  # the old one goes before the new one comes
            a = self._arrays[name] = np.empty(shape, dtype)
        return a

    def zeros(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Return the array of that name, filled with 0."""
        a = self.array(name, shape, dtype)
        a.fill(0)
        return a

    def scratch(self, size: int, dtype: np.dtype | type) -> np.ndarray:
        """Return each thread's own room to work in, (threads, at least ``size``)."""
        a = self._arrays.get("scratch")
        if a is None or a.shape[1] < size or a.dtype != dtype:
            a = self.array("scratch", (most_threads(), size), dtype)
        return a

    def parameters(self, name: str, config: ModelConfig, dtype: np.dtype | type) -> Parameters:
        """Return gradients, or others laid out like the weights of a model, of that name."""
        parameters = self._parameters.get(name)
        if parameters is None or parameters.config != config or parameters.dtype != dtype:
            parameters = self._parameters[name] = Parameters(config, dtype)
        return parameters

    @property
    def nbytes(self) -> int:
        """Bytes asked for; what was never touched takes no memory."""
        return sum(math.prod(a.shape) * a.itemsize for a in self._arrays.values())
