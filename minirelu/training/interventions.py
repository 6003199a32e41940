"""What may be done to the updates of a training, by name: ``"freeze params=embed.*"``.

Each is a class with typed settings and one method, ``around(update)``. What stands there before
``yield`` sees the gradients, before they are clipped, and may change them; then the optimizer takes
its step; what follows sees the new parameters. Of several, the first has the last word. It is a
pure function of the :class:`~minirelu.training.update.Update`: what it remembers is in
``update.state.memory``, what it draws comes from ``update.rng``, so that a resumed run ends with
the same bits.

To add one, write a class below; its name with underscores is what it is called in the setting
``intervene``. Learning rates, batches and the order of things stay as they are.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minirelu.errors import UserError, nearest, one_line
from minirelu.settings import setting
from minirelu.training.rebirth import Redo, Replace
from minirelu.training.remedies import Centre, UnitClip, UnitShrink
from minirelu.training.update import Intervention, Update

if TYPE_CHECKING:
    from minirelu.config import ModelConfig


@dataclass(frozen=True)
class Freeze(Intervention):
    """Keep parameters as they are. Their gradients count as 0, also for clipping.

    >>> freeze, = parse_interventions(["freeze params=embed.*,*.b_in last=100"])
    >>> freeze.params, freeze.acts_at(100), freeze.acts_at(101)
    ('embed.*,*.b_in', True, False)
    """

    params: str = setting(str, "Names, with * and commas: embed.*,blocks.0.*", default="*")

    def _names(self, known: Sequence[str]) -> list[str]:
        patterns = self.params.split(",")
        return [name for name in known if any(fnmatch.fnmatchcase(name, p) for p in patterns)]

    def check(self, config: ModelConfig) -> None:
        from minirelu.model.parameters import parameter_shapes

        known = list(parameter_shapes(config))
        for pattern in self.params.split(","):
            if not fnmatch.filter(known, pattern):
                raise UserError(
                    f"freeze: no parameter is called {one_line(repr(pattern))}"
                    f"{nearest(pattern, known)}"
                )

    def around(self, update: Update) -> Iterator[None]:
        names = self._names(list(update.grads))
        before = {name: update.params[name].copy() for name in names}
        for name in names:
            update.grads[name][...] = 0
        yield
        for name, p in before.items():
            update.params[name][...] = p


@dataclass(frozen=True)
class ZeroUpdate(Intervention):
    """Take the step for all but chosen hidden units: their rows of W_in and W_out, and b_in.

    Their gradients stay, in clipping and in the optimizer's slots: only the update is 0.

    >>> zero, = parse_interventions(["zero_update layer=2 units=0-2,7 first=50"])
    >>> zero.unit_numbers()
    array([0, 1, 2, 7])
    """

    layer: int = setting(int, "Layer.", default=0, low=0, high=1024)
    units: str = setting(str, "Hidden units: 0-15,20", default="0")

    def unit_numbers(self) -> np.ndarray:
        """The units, (n,) int, in order."""
        numbers: set[int] = set()
        try:
            for part in self.units.split(","):
                first, _, last = part.partition("-")
                numbers.update(range(int(first), int(last or first) + 1))
        except ValueError:
            raise UserError(
                f"zero_update: units={one_line(self.units)} is not like 0-15,20"
            ) from None
        return np.array(sorted(numbers), int)

    def check(self, config: ModelConfig) -> None:
        if self.layer >= config.n_layers:
            raise UserError(
                f"zero_update: layer={self.layer}; the model has layers 0 to {config.n_layers - 1}"
            )
        units, F = self.unit_numbers(), config.mlp_widths[self.layer]
        if not len(units) or units[-1] >= F:
            raise UserError(
                f"zero_update: units={one_line(self.units)}; layer {self.layer} has units 0 to "
                f"{F - 1}"
            )

    def around(self, update: Update) -> Iterator[None]:
        units, params = self.unit_numbers(), update.params
        names = [f"blocks.{self.layer}.mlp.{name}" for name in ("W_in", "b_in", "W_out")]
        before = {n: params[n][units] for n in names if n in params}  # copies
        yield
        for name, rows in before.items():
            params[name][units] = rows


INTERVENTIONS: dict[str, type[Intervention]] = {
    "freeze": Freeze,
    "zero_update": ZeroUpdate,
    "unit_clip": UnitClip,
    "unit_shrink": UnitShrink,
    "centre": Centre,
    "redo": Redo,
    "replace": Replace,
}


def parse_interventions(texts: Sequence[str]) -> list[Intervention]:
    """Make interventions of ``"name setting=value ..."``.

    Raises
    ------
    UserError
        an unknown name or setting (the nearest is named), a value that is not allowed, or two that
        cannot be combined.
    """
    interventions = [_parse(text) for text in texts]
    names = [shlex.split(text)[0] for text in texts]
    for i, one in enumerate(interventions):
        for other in names[:i] + names[i + 1 :]:
            if other in one.not_with:
                raise UserError(
                    f"intervene: {names[i]} cannot be combined with {other}; give one of them"
                )
    return interventions


def _parse(text: str) -> Intervention:
    where = f"intervene {one_line(text)}: "
    name, *given = shlex.split(text) or [""]
    if name not in INTERVENTIONS:
        known = f"{', '.join(INTERVENTIONS)}{nearest(name, INTERVENTIONS)}"
        raise UserError(f"{where}no intervention {one_line(repr(name))}; there are {known}")
    kind = INTERVENTIONS[name]
    fields = {f.name: f for f in dataclasses.fields(kind)}
    values = {}
    for part in given:
        key, _, value = part.partition("=")
        if key not in fields:
            known = f"{', '.join(fields)}{nearest(key, fields)}"
            raise UserError(f"{where}{name} has no setting {one_line(repr(key))}; it has {known}")
        try:
            values[key] = fields[key].metadata["kind"](value)
        except ValueError:
            of_type = fields[key].metadata["kind"].__name__
            raise UserError(f"{where}{key}={one_line(value)} is not of type {of_type}") from None
    try:
        return kind(**values)
    except UserError as e:
        raise UserError(f"{where}{e}") from None
