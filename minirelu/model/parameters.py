"""All weights in one flat vector, with a named view for each tensor, and how they start."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from minirelu.config import ModelConfig


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, in the order in which the model uses them.

    The MLP is stored unit-major: row j of ``W_in`` is what hidden unit j looks for (its key),
    row j of ``W_out`` what it writes (its value). All other matrices are (in, out).

    >>> config = ModelConfig(n_layers=1, n_heads=2, d_model=8, d_mlp=32, n_ctx=16, d_vocab=100)
    >>> parameter_shapes(config)["blocks.0.mlp.W_in"]
    (32, 8)
    """
    C, V = config.d_model, config.d_vocab
    shapes: dict[str, tuple[int, ...]] = {}
    shapes["embed.W_E"] = (V, C)
    shapes["pos_embed.W_pos"] = (config.n_ctx, C)
    for l, F in enumerate(config.mlp_widths):
        block = f"blocks.{l}."
        shapes[block + "ln1.w"] = (C,)
        shapes[block + "ln1.b"] = (C,)
        for name in ("Q", "K", "V", "O"):
            shapes[block + f"attn.W_{name}"] = (C, C)
            shapes[block + f"attn.b_{name}"] = (C,)
        shapes[block + "ln2.w"] = (C,)
        shapes[block + "ln2.b"] = (C,)
        shapes[block + "mlp.W_in"] = (F, C)
        shapes[block + "mlp.b_in"] = (F,)
        shapes[block + "mlp.W_out"] = (F, C)
        shapes[block + "mlp.b_out"] = (C,)
    shapes["ln_final.w"] = (C,)
    shapes["ln_final.b"] = (C,)
    if not config.bias:
        shapes = {name: s for name, s in shapes.items() if not is_bias(name)}
    return shapes


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by its name: ``b`` or ``b_...`` after the last dot."""
    last = name.rpartition(".")[2]
    return last == "b" or last.startswith("b_")


def n_params(config: ModelConfig) -> int:
    """Return the number of parameters; the tied unembedding counts once.

    >>> n_params(ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5))
    71
    """
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


class Parameters(Mapping[str, np.ndarray]):
    """Named views into one flat vector.

    Gradients and Adam's moments have the same layout, so that the optimizer is one loop over one
    vector. Matrices come first in it, then vectors: ``flat[:n_matrix]`` is what weight decay
    applies to.

    Attributes
    ----------
    config : ModelConfig
    flat : ndarray, (n_params,)
        every number; the tensors are views of it, so writing to either changes both.
    n_matrix : int
        how many of them belong to matrices.

    Examples
    --------
    >>> config = ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> params = Parameters(config)
    >>> params["blocks.0.mlp.W_in"][:] = 1
    >>> params.flat.sum(), params.flat.dtype
    (np.float32(6.0), dtype('float32'))
    """

    def __init__(self, config: ModelConfig, dtype: type | np.dtype = np.float32) -> None:
        shapes = parameter_shapes(config)
        vectors_last = sorted(shapes, key=lambda name: len(shapes[name]) < 2)  # a stable sort
        self.config = config
        self.flat = np.zeros(n_params(config), dtype=dtype)
        self.n_matrix = sum(math.prod(s) for s in shapes.values() if len(s) > 1)
        views, start = {}, 0
        self._starts = {}
        for name in vectors_last:
            self._starts[name] = start
            stop = start + math.prod(shapes[name])
            views[name] = self.flat[start:stop].reshape(shapes[name])
            start = stop
        self._views = {name: views[name] for name in shapes}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def store(self, name: str, value: np.ndarray) -> None:
        """Write a tensor; one that this model lacks, the gradient of a bias, is left out."""
        if name in self:
            self[name][...] = value

    def stacked(self, *names: str) -> np.ndarray:
        """Return tensors of one shape that lie side by side, W_Q, W_K and W_V say, as one view.

        >>> config = ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
        >>> params = Parameters(config)
        >>> params.stacked("blocks.0.attn.W_Q", "blocks.0.attn.W_K").shape
        (2, 2, 2)
        """
        first = self[names[0]]
        starts = [self._starts[name] for name in names]
        expected = [starts[0] + i * first.size for i in range(len(names))]
        assert starts == expected, f"{names} do not lie side by side"
        part = self.flat[starts[0] : starts[0] + len(names) * first.size]
        return part.reshape(len(names), *first.shape)

    @property
    def dtype(self) -> np.dtype:
        """Of every tensor: float32 to train, float64 to check."""
        return self.flat.dtype


def as_parameters(tensors: Mapping[str, np.ndarray], config: ModelConfig) -> Parameters:
    """Copy tensors from anywhere into one flat vector.

    >>> config = ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> as_parameters(dict(init_params(config)), config).flat.size
    71
    """
    params = Parameters(config, tensors["embed.W_E"].dtype)
    for name, p in params.items():
        p[...] = tensors[name]
    return params


def init_params(
    config: ModelConfig, seed: int = 0, dtype: type | np.dtype = np.float32
) -> Parameters:
    """Draw initial weights.

    Gains are 1 and biases 0. For the rest ``config.init`` says:

    * ``gpt2``: normal with standard deviation 0.02; what writes to the residual stream (``W_O``,
      ``W_out``) is scaled by 1/sqrt(2 L) (Radford et al. 2019, section 2.3).
    * ``nanodo``: Xavier uniform, ±sqrt(6 / (in + out)) (Glorot & Bengio 2010, eq. 16); both
      embeddings normal with standard deviation 1/sqrt(d_model).

    ``config.init_embed`` and ``config.init_w_in`` scale the embeddings and ``W_in``.

    Parameters
    ----------
    config : ModelConfig
    seed : int
        same seed, same weights; float32 weights are the rounded float64 ones.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    params : Parameters

    Examples
    --------
    >>> config = ModelConfig(n_layers=2, n_heads=2, d_model=64, d_mlp=128, n_ctx=8, d_vocab=99)
    >>> params = init_params(config, seed=1)
    >>> print(f"{params['blocks.0.attn.W_Q'].std():.3f} {params['blocks.0.attn.W_O'].std():.3f}")
    0.020 0.010
    """
    params = Parameters(config, dtype)
    rng = np.random.default_rng(seed)
    for name, p in params.items():
        if p.ndim == 2:
            p[:] = initial_rows(name, len(p), config, rng)
        elif name.endswith(".w"):
            p[:] = 1
    return params


def initial_rows(
    name: str, n: int, config: ModelConfig, rng: np.random.Generator
) -> np.ndarray:  # (n, ...)
    """Draw n rows of a matrix, as :func:`init_params` draws all of them.

    >>> config = ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> initial_rows("blocks.0.mlp.W_in", 1, config, np.random.default_rng(0)).shape
    (1, 2)
    """
    rows, columns = parameter_shapes(config)[name]
    embedding = name in ("embed.W_E", "pos_embed.W_pos")
    factor = config.init_embed if embedding else 1.0
    if name.endswith("W_in"):
        factor = config.init_w_in
    if config.init == "gpt2":
        residual = name.endswith(("W_O", "W_out"))
        std = 0.02 / math.sqrt(2 * config.n_layers) if residual else 0.02
        return factor * std * rng.standard_normal((n, columns))
    if embedding:
        return factor * rng.standard_normal((n, columns)) / math.sqrt(config.d_model)
    limit = factor * math.sqrt(6 / (rows + columns))
    return rng.uniform(-limit, limit, (n, columns))
