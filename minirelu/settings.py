"""What a setting is: its type, its meaning and what it may be, checked by name."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import field
from typing import Any

from minirelu.errors import UserError, nearest, one_line


def setting(
    kind: type,
    help: str,
    default: Any = dataclasses.MISSING,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    per_layer: bool = False,
    several: bool = False,
) -> Any:
    """Describe one dataclass field: its type, its meaning and what it may be.

    ``per_layer``: one value, or one for each layer; ``several``: any number of values, or none.
    """
    described = {"kind": kind, "help": help, "low": low, "high": high}
    described |= {"choices": choices, "per_layer": per_layer, "several": several}
    return field(default=default, metadata=described)


class Checked:
    """Dataclass base that checks every field against its :func:`setting`, by name."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]  # a dataclass's base
            value = getattr(self, f.name)
            takes_list = f.metadata["several"] or f.metadata["per_layer"]
            if takes_list and isinstance(value, (list, tuple)):
                if f.metadata["per_layer"] and not value:
                    raise UserError(f"{f.name}: an empty list; give one number per layer")
                checked = tuple(_check_value(f, v) for v in value)
            elif f.metadata["several"]:
                raise UserError(f"{f.name}: {one_line(repr(value))} is not a list")
            else:
                checked = _check_value(f, value)
            object.__setattr__(self, f.name, checked)


def _check_value(f: dataclasses.Field, value: Any) -> Any:
    """Return ``value`` in the field's own type, or raise: field, value, what is allowed."""
    kind, low, high = f.metadata["kind"], f.metadata["low"], f.metadata["high"]

    if kind is int:
        allowed = f"a whole number from {low} to {high}"
        whole = hasattr(value, "__index__") and not isinstance(value, bool)
        fine = whole and low <= int(value) <= high
    elif kind is float:
        allowed = f"a number from {low:g} to {high:g}"
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        fine = number and low <= value <= high  # false for a NaN
    elif kind is bool:
        allowed, fine = "true or false", isinstance(value, bool)
    elif f.metadata["choices"]:
        choices = f.metadata["choices"]
        allowed, fine = "one of " + ", ".join(choices), value in choices
        if isinstance(value, str) and not fine:
            allowed += nearest(value, choices)
    else:
        allowed = "text, in UTF-8"
        fine = isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value != ""

    if not fine:
        raise UserError(f"{f.name}: {one_line(repr(value))} is not allowed; it must be {allowed}")
    return kind(value)
