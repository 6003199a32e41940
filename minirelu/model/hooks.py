"""Reaching into a running model: activations may be replaced, by name, before they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np

from minirelu.errors import UserError, nearest

Array = np.ndarray

# What every operation calls with each of its activations (in the backward: with the gradient with
# respect to it), by name, and goes on with what it gets back.
Hook: TypeAlias = Callable[[str, Array], Array]

# A function from an activation to what is used in its place, or a pair: that function, and its
# backward, from (the gradient with respect to its result, its input) to that of its input.
Edit: TypeAlias = (
    "Callable[[Array], Array] | tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]"
)

# Where `acts` keep what an activation was before its edit: under its name, with this after it.
BEFORE = " before edit"


def as_it_is(name: str, value: Array) -> Array:
    """The hook that changes nothing."""
    return value


def inside(hook: Hook, where: str) -> Hook:
    """Return a hook that puts ``where`` before every name, ``blocks.0.attn.`` say."""
    return lambda name, value: hook(where + name, value)


def before_edit(acts: Mapping[str, Array], name: str) -> Array:
    """What an activation was before its edit; the activation itself where there was none."""
    return acts.get(name + BEFORE, acts[name])


def edited(edit: Edit, name: str, value: Array) -> Array:
    """Apply an edit to a copy of an activation; refuse a result of another shape or dtype."""
    function = edit[0] if isinstance(edit, tuple) else edit
    result = function(value.copy())  # so that an edit in place changes nothing but its result
    if not isinstance(result, np.ndarray):
        raise UserError(
            f"edit of {name!r} returned {type(result).__name__}; it must return an array "
            f"{value.shape} of {value.dtype}"
        )
    if result.shape != value.shape or result.dtype != value.dtype:
        raise UserError(
            f"edit of {name!r} returned shape {result.shape} of {result.dtype}; it must return "
            f"{value.shape} of {value.dtype}"
        )
    return result


def edited_backward(edit: Edit, name: str, d: Array, before: Array) -> Array:
    """Gradient with respect to what was edited: by its own backward, else 0, as of a constant."""
    if not isinstance(edit, tuple):
        return np.zeros_like(d)
    result = edit[1](d.copy(), before)
    if not isinstance(result, np.ndarray) or result.shape != d.shape:
        raise UserError(f"the backward of the edit of {name!r} must return an array {d.shape}")
    return result


def check_edits(edit: Mapping[str, Edit] | None, known: Iterable[str]) -> Mapping[str, Edit]:
    """Return the edits, or raise for an unknown activation, or an edit of another kind."""
    known = list(known)
    for name, each in (edit or {}).items():
        if name not in known:
            raise UserError(f"edit: no activation {name!r}{nearest(name, known)}")
        pair = isinstance(each, tuple) and len(each) == 2 and all(map(callable, each))
        if not pair and not callable(each):
            raise UserError(f"edit of {name!r}: give a function, or a pair of it and its backward")
    return edit or {}
