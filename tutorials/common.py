"""What all tutorials share: showing a picture, and answering an exercise with a sentence."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from minirelu.errors import one_line
from minirelu.figures.style import STYLE

RTOL = 1e-6
# A tutorial is a program of its own, so this holds for all of its pictures. The powers of ten at a
# logarithmic axis are written as mathematics, which the style's figures do without.
mpl.rcParams.update({**STYLE, "text.parse_math": True})


def show(figure: Figure) -> None:
    """Show a figure below its cell in a notebook; in a program only draw it, without a window.

    Make figures with ``matplotlib.figure.Figure`` or :mod:`minirelu.figures`, not with pyplot,
    which would want a display.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80, metadata={"Software": None})
    if "IPython" in sys.modules:
        from IPython import get_ipython
        from IPython.display import Image, display

        if get_ipython() is not None:
            display(Image(png.getvalue()))


def check(name: str, given: Any, expected: Any, mistakes: Mapping[str, Any] | None = None) -> bool:
    """Say in a sentence whether an answer is right, or what may be wrong with it. Never raises.

    Parameters
    ----------
    name : str
        what the reader calls the answer.
    given : anything
        the reader's answer; None or ``...`` where there is none yet.
    expected : array_like
        numbers; compared with a tolerance of 1e-6 of the largest.
    mistakes : mapping, optional
        hint to the answer that one gets by the mistake it explains.

    Returns
    -------
    right : bool

    Examples
    --------
    >>> check("y", [2.0, 4.0], [2.0, 4.0])
    y: right.
    True
    >>> check("y", [1.0, 3.0], [2.0, 4.0], {"the bias is missing": [1.0, 3.0]})
    y: not yet. It looks as if the bias is missing.
    False
    >>> check("y", None, [2.0, 4.0])
    y: not answered yet.
    False
    """
    hint = _hint(given, np.asarray(expected), mistakes or {})
    print(f"{name}: {hint}")
    return hint == "right."


def call(name: str, function: Any, *arguments: Any) -> tuple[bool, Any]:
    """Call a reader's function on copies of the arguments; say so where that is not possible.

    Returns
    -------
    returned : bool
        False after a sentence has been printed: no function, or it raised.
    value : anything
        what the function returned.

    Examples
    --------
    >>> call("half", lambda x: x / 2, 8)
    (True, 4.0)
    >>> call("half", lambda x: x / 0, 8)
    half: it raised ZeroDivisionError (division by zero).
    (False, None)
    """
    if not isinstance(function, Callable):
        unanswered = function is None or function is ...
        print(f"{name}: {'not answered yet.' if unanswered else 'not yet. Give a function.'}")
        return False, None
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    try:
        return True, function(*copies)
    except Exception as e:  # whatever a reader's code may raise
        print(f"{name}: it raised {type(e).__name__} ({_words(e)}).")
        return False, None


def _words(value: object) -> str:
    try:
        return one_line(value)[:120]
    except Exception:  # an object that cannot even be printed
        return "no message"


def _hint(given: Any, expected: np.ndarray, mistakes: Mapping[str, Any]) -> str:
    if given is None or given is ...:
        return "not answered yet."
    if isinstance(given, Callable):
        return "not yet. This is a function; call it, and give what it returns."
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "buif":
            raise TypeError
        array = array.astype(np.float64)
    except Exception:  # ragged lists, strings, objects with an __array__ of their own
        return f"not yet. It should be numbers; this is {type(given).__name__}."

    if same(array, expected):
        return "right."
    for hint, mistake in mistakes.items():
        if same(array, np.asarray(mistake)):
            return f"not yet. It looks as if {hint}."
    if array.shape != expected.shape:
        transposed = array.ndim > 1 and array.shape == expected.T.shape
        tail = "; it looks transposed" if transposed else ""
        return f"not yet. Its shape is {array.shape}, and should be {expected.shape}{tail}."
    if not np.isfinite(array).all():
        return f"not yet. {np.sum(~np.isfinite(array))} of its numbers are NaN or infinite."
    if array.ndim > 1 and array.shape == expected.T.shape and same(array, expected.T):
        return "not yet. It looks transposed."
    factor = _common_factor(array, expected)
    if factor is not None and abs(factor + 1) < RTOL:
        return "not yet. The sign is the wrong way round."
    if factor:
        return (
            f"not yet. Every number is {factor:.4g} times what it should be: a factor is missing."
        )
    right = np.isclose(array, expected, rtol=RTOL, atol=RTOL * np.abs(expected).max(initial=0))
    if expected.size == 1:
        return "not yet. It is a different number."
    return f"not yet. {right.sum()} of {right.size} numbers are right."


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have one shape and, to 1e-6 of the largest, the same numbers."""
    if a.shape != b.shape:
        return False
    with np.errstate(all="ignore"):
        scale = np.abs(b[np.isfinite(b)]).max(initial=0)
        return bool(np.allclose(a, b, rtol=RTOL, atol=RTOL * scale, equal_nan=True))


def _common_factor(a: np.ndarray, b: np.ndarray) -> float | None:
    """The one number that b is to be multiplied by to give a, if there is one."""
    with np.errstate(all="ignore"):
        norm = float((b * b).sum())
        factor = float((a * b).sum()) / norm if norm > 0 else np.nan
        return factor if np.isfinite(factor) and same(a, factor * b) else None
