"""minirelu: a ReLU Transformer with hand-written gradients, and what its hidden units do.

Importing this is quick: nothing is compiled and no plotting library is loaded until it is used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# OpenBLAS threads keep spinning after a matrix product and hold the cores that Numba's threads
# want next. This makes them sleep at once; it is read when NumPy loads, so it works only if
# minirelu is imported first.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

__version__ = "0.3.0"

_HOME = {
    "ModelConfig": "minirelu.config",
    "TextConfig": "minirelu.config",
    "TrainConfig": "minirelu.config",
    "Config": "minirelu.config",
    "UserError": "minirelu.errors",
    "Parameters": "minirelu.model.parameters",
    "init_params": "minirelu.model.parameters",
    "n_params": "minirelu.model.parameters",
    "forward": "minirelu.model.transformer",
    "backward": "minirelu.model.transformer",
    "loss_and_grads": "minirelu.compute",
    "cross_entropy": "minirelu.model.cross_entropy",
    "generate": "minirelu.generation",
    "UnitCounts": "minirelu.sparsity.counts",
    "usage": "minirelu.sparsity.usage",
    "in_sequence_percentile": "minirelu.sparsity.usage",
    "Workspace": "minirelu.compute",
    "Run": "minirelu.runs.run",
    "create_run": "minirelu.runs.prepare",
    "branch": "minirelu.runs.branch",
    "train": "minirelu.training.trainer",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Load a public name from its home when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'minirelu' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from minirelu.compute import Workspace, loss_and_grads
    from minirelu.config import Config, ModelConfig, TextConfig, TrainConfig
    from minirelu.errors import UserError
    from minirelu.generation import generate
    from minirelu.model.cross_entropy import cross_entropy
    from minirelu.model.parameters import Parameters, init_params, n_params
    from minirelu.model.transformer import backward, forward
    from minirelu.runs.branch import branch
    from minirelu.runs.prepare import create_run
    from minirelu.runs.run import Run
    from minirelu.sparsity.counts import UnitCounts
    from minirelu.sparsity.usage import in_sequence_percentile, usage
    from minirelu.training.trainer import train
