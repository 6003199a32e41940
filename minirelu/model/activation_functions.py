"""The MLP's activation functions: each forward above its backward, and what "on" means for it.

To add one, write a pair ``name_forward(pre)`` and ``name_backward(dpost, pre)`` below, and nothing
else: ``act_fn="name"`` is then a setting like the others, trained by the reference, and
``minirelu check`` compares its gradient with central differences. A parameter after ``pre`` is a
setting of the model of that name (``act_k``), and is given to both.

A unit is **on** at a token where its activation is not exactly 0. A function that is hardly ever 0
says with ``@off_below(threshold)`` which activations count as off instead; every table that counts
units then says so.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

# The closed interval of activations that count as off.
Off = tuple[float, float]
EXACT_ZERO: Off = (0.0, 0.0)
F = TypeVar("F", bound=Callable[..., Any])


def off_below(threshold: float) -> Callable[[F], F]:
    """Say that activations up to this threshold count as off, for a function without zeros."""

    def mark(forward: F) -> F:
        forward.off = (-math.inf, threshold)  # type: ignore[attr-defined]
        return forward

    return mark


# --- relu: max(pre, 0). The one of Wild & Anderson 2024, and of OPT.


def relu_forward(pre: np.ndarray) -> np.ndarray:  # (N, F) -> (N, F)
    """Keep what is above 0; a NaN stays one.

    >>> relu_forward(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return np.maximum(pre, 0)


def relu_backward(dpost: np.ndarray, pre: np.ndarray) -> np.ndarray:  # (N, F) twice -> (N, F)
    """Pass the gradient on where ``pre > 0``.

    >>> relu_backward(np.array([5.0, 5.0]), np.array([-1.0, 2.0]))
    array([0., 5.])
    """
    return np.where(pre > 0, dpost, dpost.dtype.type(0))


# --- relu2: max(pre, 0)**2, the squared ReLU (So et al. 2021, *Primer*, section 3.2).


def relu2_forward(pre: np.ndarray) -> np.ndarray:
    """Square what is above 0.

    >>> relu2_forward(np.array([-1.0, 3.0]))
    array([0., 9.])
    """
    return np.square(np.maximum(pre, 0))


def relu2_backward(dpost: np.ndarray, pre: np.ndarray) -> np.ndarray:
    """Multiply the gradient by the slope ``2 * max(pre, 0)``.

    >>> relu2_backward(np.array([5.0, 5.0]), np.array([-1.0, 3.0]))
    array([ 0., 30.])
    """
    return np.where(pre > 0, dpost * (2 * pre), dpost.dtype.type(0))


# --- leaky_relu: a small slope below 0 (Maas et al. 2013, section 2).

LEAK = 0.01


@off_below(0.0)
def leaky_relu_forward(pre: np.ndarray) -> np.ndarray:
    """Keep what is above 0, and a hundredth of what is below.

    >>> leaky_relu_forward(np.array([-1.0, 2.0]))
    array([-0.01,  2.  ])
    """
    return np.where(pre > 0, pre, pre.dtype.type(LEAK) * pre)


def leaky_relu_backward(dpost: np.ndarray, pre: np.ndarray) -> np.ndarray:
    """Multiply the gradient by the slope, 1 above 0 and a hundredth below.

    >>> leaky_relu_backward(np.array([5.0, 5.0]), np.array([-1.0, 2.0]))
    array([0.05, 5.  ])
    """
    return np.where(pre > 0, dpost, dpost.dtype.type(LEAK) * dpost)


# --- gelu: pre * Phi(pre), Phi the standard normal CDF (Hendrycks & Gimpel 2016, section 2).


@off_below(0.0)
def gelu_forward(pre: np.ndarray) -> np.ndarray:
    """Multiply each number by the chance that a normal one is smaller; exact, not by tanh.

    >>> gelu_forward(np.array([-1.0, 2.0])).round(4)
    array([-0.1587,  1.9545])
    """
    return pre * _normal_cdf(pre)


def gelu_backward(dpost: np.ndarray, pre: np.ndarray) -> np.ndarray:
    """Multiply the gradient by the slope ``Phi(pre) + pre * Phi'(pre)``.

    >>> gelu_backward(np.array([5.0, 5.0]), np.array([-1.0, 2.0])).round(4)
    array([-0.4166,  5.4262])
    """
    density = np.exp(-0.5 * pre * pre) / math.sqrt(2 * math.pi)
    return dpost * (_normal_cdf(pre) + pre * density)


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return 0.5 * (1 + erf(x / math.sqrt(2)))


# --- topk: the k largest pre-activations of a token, as they are (Makhzani & Frey 2014, section 2).


def topk_forward(pre: np.ndarray, act_k: int) -> np.ndarray:
    """Keep the ``act_k`` largest of each row, whatever their sign, and make the others 0.

    >>> topk_forward(np.array([[3.0, -1.0, 2.0, 1.0]]), act_k=2)
    array([[3., 0., 2., 0.]])
    """
    return np.where(_largest(pre, act_k), pre, pre.dtype.type(0))


def topk_backward(dpost: np.ndarray, pre: np.ndarray, act_k: int) -> np.ndarray:
    """Pass the gradient on to those that were kept.

    >>> topk_backward(np.array([[5.0, 5, 5, 5]]), np.array([[3.0, -1.0, 2.0, 1.0]]), act_k=2)
    array([[5., 0., 5., 0.]])
    """
    return np.where(_largest(pre, act_k), dpost, dpost.dtype.type(0))


def _largest(pre: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest of each row are; ties go to the first. A NaN counts as largest."""
    n = pre.shape[-1]
    if k >= n:
        return np.ones(pre.shape, bool)
    kth = np.partition(pre, n - k, axis=-1)[..., n - k, None]
    above = ~(pre <= kth)  # true for a NaN
    equal = pre == kth
    room = k - above.sum(axis=-1, keepdims=True)
    return above | (equal & (np.cumsum(equal, axis=-1) <= room))


# --- All of them, by name.


class ActFn(NamedTuple):
    """An activation function with its settings filled in.

    ``forward(pre)`` and ``backward(dpost, pre)`` work on arrays whose last axis are the units;
    ``off`` is the closed interval of activations that count as off.
    """

    name: str
    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray, np.ndarray], np.ndarray]
    off: Off

    @property
    def has_zeros(self) -> bool:
        """Whether a unit that is off is exactly 0, so that leaving it out changes nothing."""
        return self.off == EXACT_ZERO

    @property
    def on_means(self) -> str:
        """What "on" means, for tables: 'exactly non-zero', or 'above 0'."""
        return "exactly non-zero" if self.has_zeros else f"above {self.off[1]:g}"


def act_fn_names() -> tuple[str, ...]:
    """Names of all activation functions, in the order of this file.

    >>> act_fn_names()[:3]
    ('relu', 'relu2', 'leaky_relu')
    """
    return tuple(name.removesuffix("_forward") for name in globals() if name.endswith("_forward"))


def act_fn_settings(name: str) -> tuple[str, ...]:
    """Names of the settings that an activation function has beside ``pre``.

    >>> act_fn_settings("topk"), act_fn_settings("relu")
    (('act_k',), ())
    """
    return tuple(inspect.signature(globals()[f"{name}_forward"]).parameters)[1:]


def activation_function(name: str, **settings: Any) -> ActFn:
    """Return an activation function; ``settings`` may hold more than it asks for.

    Parameters
    ----------
    name : str
        one of :func:`act_fn_names`.
    **settings
        such as ``act_k``.

    Examples
    --------
    >>> topk = activation_function("topk", act_k=1)
    >>> topk.forward(np.array([[1.0, 3.0]])), topk.on_means
    (array([[0., 3.]]), 'exactly non-zero')
    """
    forward, backward = globals()[f"{name}_forward"], globals()[f"{name}_backward"]
    given = {key: settings[key] for key in act_fn_settings(name)}
    return ActFn(
        name,
        functools.partial(forward, **given),
        functools.partial(backward, **given),
        getattr(forward, "off", EXACT_ZERO),
    )


def is_on(post: np.ndarray, off: Off = EXACT_ZERO) -> np.ndarray:
    """Where activations lie outside of what counts as off; a NaN is not on.

    >>> is_on(np.array([-0.5, 0.0, 0.5])), is_on(np.array([-0.5, 0.0, 0.5]), (-np.inf, 0.0))
    (array([ True, False,  True]), array([False, False,  True]))
    """
    low, high = off
    return (post > high) | (post < low)
