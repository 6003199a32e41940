"""What a sweep is: settings that all its runs share, fields that vary, and seeds."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirelu.config import SECTIONS, Config, read_toml
from minirelu.errors import UserError, nearest, one_line, shown

FIELDS = {f.name: section for section, kind in SECTIONS.items() for f in dataclasses.fields(kind)}

_REDUCED = dict(n_heads=2, d_model=64, n_ctx=128, d_vocab=1024)
_LADDER: dict[str, dict[str, Any]] = {
    "model": dict(_REDUCED, n_layers=4, d_mlp=1024),
    "train": dict(steps=400, batch_size=16, learning_rate=1e-2),
}
# Sweeps with a name: what varies, the preset, and settings that override it.
NAMED: dict[str, tuple[dict[str, tuple[Any, ...]], str, dict[str, dict[str, Any]]]] = {
    # Figures 3 and 4 of Wild & Anderson, so small that a run takes less than a minute.
    "fig3": (
        {"d_mlp": (512, 1024, 2048)},
        "plain",
        {
            "model": dict(_REDUCED, n_layers=4),
            "train": dict(steps=600, batch_size=16, learning_rate=1e-2),
        },
    ),
    "fig4": (
        {"n_layers": (6, 10, 14)},
        "plain",
        {"model": dict(_REDUCED, d_mlp=512), "train": dict(steps=400)},
    ),
    # From too small to ample: where the pattern across layers begins.
    "ladder-d-mlp": (
        {"d_mlp": (64, 128, 256, 512, 1024, 2048, 4096, 8192)},
        "plain",
        _LADDER,
    ),
    "ladder-d-model": ({"d_model": (16, 32, 64, 128, 256)}, "plain", _LADDER),
    "ladder-act-fn": (
        {"act_fn": ("relu", "relu2", "topk", "leaky_relu", "gelu")},
        "plain",
        _LADDER,
    ),
    # What moves the use of a layer? Two values of each setting, and a fraction of their grid.
    "screen": (
        {
            "d_mlp": (512, 4096),
            "d_vocab": (512, 4096),
            "d_model": (32, 64),
            "bias": (False, True),
            "learning_rate": (3e-3, 1e-2),
            "warmup_steps": (20, 200),
            "weight_decay": (0.0, 0.3),
            "init_embed": (0.2, 1.0),
            "init_w_in": (0.2, 1.0),
            "batch_size": (8, 16),
            "act_fn": ("relu", "relu2"),
            "l1": (0.0, 3e-5),
        },
        "plain",
        {
            "model": dict(n_heads=2, n_ctx=128, n_layers=4),
            "train": dict(steps=500, schedule="constant", snapshot_budget_gb=0.0),
        },
    ),
    # What makes the first layer go quiet? Each time something is kept from acting.
    "causes": (
        {
            "intervene": (
                (),
                ("centre",),
                ("freeze params=embed.*,pos_embed.*",),
                ("freeze params=blocks.0.mlp.W_in",),
                ("freeze params=blocks.0.mlp.b_in",),
                ("freeze params=blocks.0.ln2.b",),
                ("freeze params=blocks.0.mlp.b_in,blocks.0.ln2.b",),
                ("freeze params=*.b_*,*.b",),
            )
        },
        "quiet",
        {},
    ),
    "biases": (
        {
            "intervene": (
                (),
                ("freeze params=*.ln*.b,ln_final.b,*.attn.b_*",),  # of the MLPs alone
                ("freeze params=*.b_*",),  # of layer norms alone
                ("freeze params=*.b_*,*.b",),  # none learns
            )
        },
        "quiet",
        {"train": dict(l1=0.0)},
    ),
    # Figures 3 and 4 at the paper's width and depth.
    "fig3-paper": ({"d_mlp": (8192, 16384, 32768)}, "paper", {"train": dict(steps=2000)}),
    "fig4-paper": (
        {"n_layers": (6, 10, 14)},
        "paper",
        {"model": dict(d_mlp=16384), "train": dict(steps=2000)},
    ),
}
# Of these, so many combinations instead of the whole grid.
FRACTIONS = {"screen": 32}


@dataclass(frozen=True)
class Point:
    """One run of a sweep: the name of its folder, the values of what varies, its settings."""

    name: str
    values: dict[str, Any]
    settings: Config


@dataclass(frozen=True)
class Sweep:
    """Settings that all runs share, and what varies between them.

    Attributes
    ----------
    base : Config
        of the first run: with the first value of every field that varies, and the first seed.
    vary : dict
        names of fields, and their values.
    seeds : int
        runs of each combination; their seeds are ``base.train.seed`` and those after it.
    rows : tuple of tuple, optional
        the combinations that are run, in the order of ``vary``; without them, all there are.

    Examples
    --------
    >>> sweep = Sweep.build("tiny", vary={"d_mlp": (64, 128)}, seeds=2)
    >>> [point.name for point in sweep.points()]
    ['d_mlp=64,seed=0', 'd_mlp=128,seed=0', 'd_mlp=64,seed=1', 'd_mlp=128,seed=1']
    """

    base: Config
    vary: dict[str, tuple[Any, ...]]
    seeds: int
    rows: tuple[tuple[Any, ...], ...] | None = None

    @classmethod
    def build(
        cls,
        preset: str | None = None,
        file: str | Path | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        vary: Mapping[str, tuple[Any, ...]] | None = None,
        seeds: int = 3,
        rows: tuple[tuple[Any, ...], ...] | None = None,
    ) -> Sweep:
        """Combine settings as :meth:`Config.build` does, and check those of every run.

        Raises
        ------
        UserError
            a wrong field or value, one given twice, no seeds.
        """
        vary, given = dict(vary or {}), {s: dict((options or {}).get(s, {})) for s in SECTIONS}
        if not 1 <= seeds <= 10_000:
            raise UserError(f"seeds: {seeds} is not allowed; it must be a whole number from 1")
        for field, values in vary.items():
            section = section_of(field)
            if field == "seed":
                raise UserError("seed cannot vary; --seeds is their number, --seed the first")
            if field in given[section]:
                raise UserError(f"{field} varies; leave out its single value")
            given[section][field] = values[0]
        sweep = cls(Config.build(preset, file, given), vary, seeds, rows)
        sweep.points()  # raises for a value that is not allowed
        return sweep

    @classmethod
    def named(
        cls,
        name: str,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        vary: Mapping[str, tuple[Any, ...]] | None = None,
        seeds: int = 3,
    ) -> Sweep:
        """Make one of ``NAMED``; options and values given here take precedence over its own.

        >>> Sweep.named("fig4", vary={"n_layers": (2, 3)}, seeds=1).points()[1].name
        'n_layers=3,seed=0'
        """
        from minirelu.sweeps.design import fraction

        if name not in NAMED:
            known = f"{', '.join(NAMED)}{nearest(name, NAMED)}"
            raise UserError(f"unknown sweep {one_line(repr(name))}; there are {known}")
        default_vary, preset, below = NAMED[name]
        vary = {**default_vary, **(vary or {})}
        options = {
            section: {f: v for f, v in below.get(section, {}).items() if f not in vary}
            | dict((options or {}).get(section, {}))
            for section in SECTIONS
        }
        rows = fraction(vary, FRACTIONS[name]) if name in FRACTIONS else None
        return cls.build(preset, None, options, vary, seeds, rows)

    def points(self) -> list[Point]:
        """All runs, seed by seed, so that the first ones of a grid cover its whole range."""
        points, names = [], set()
        rows = self.rows or tuple(itertools.product(*self.vary.values()))
        for i, (number, values) in itertools.product(range(self.seeds), enumerate(rows, 1)):
            varied = dict(zip(self.vary, values, strict=True))
            varied["seed"] = self.base.train.seed + i
            tables = self.base.tables()
            for field, value in varied.items():
                tables[FIELDS[field]][field] = value
            settings = Config.from_tables(tables)
            name = ",".join(f"{field}={value_name(value)}" for field, value in varied.items())
            if self.rows:  # all their settings would be too long for a folder's name
                name = f"run={number:03},seed={varied['seed']}"
            if name.casefold() in names:
                raise UserError(f"two runs would be called {name}; give every value once")
            names.add(name.casefold())
            points.append(Point(name, varied, settings))
        return points

    def to_toml(self) -> str:
        """Write everything needed to do the sweep again."""
        from minirelu.runs.prepare import made_with

        seed = self.base.train.seed
        sweep = {
            "seeds": list(range(seed, seed + self.seeds)),
            "vary": {field: list(values) for field, values in self.vary.items()},
        }
        if self.rows:
            sweep["rows"] = [list(row) for row in self.rows]
        return self.base.to_toml(sweep=sweep, made_with=made_with())

    @classmethod
    def from_folder(cls, folder: str | Path) -> Sweep:
        """Read ``sweep.toml``; raises a UserError where there is none, or it is damaged."""
        file = Path(folder) / "sweep.toml"
        if not file.is_file():
            raise UserError(f"no sweep in {shown(folder)}: it has no sweep.toml")
        tables = read_toml(file)
        sweep = tables.pop("sweep", None)
        try:
            vary = {
                field: tuple(tuple(v) if isinstance(v, list) else v for v in values)
                for field, values in sweep["vary"].items()
            }
            seeds = len(sweep["seeds"])
            rows = tuple(
                tuple(tuple(v) if isinstance(v, list) else v for v in row)
                for row in sweep.get("rows", ())
            )
        except (TypeError, KeyError, AttributeError):
            raise UserError(f"{shown(file)} is damaged: its [sweep] is not complete") from None
        if not all(field in FIELDS and values for field, values in vary.items()):
            raise UserError(
                f"{shown(file)} is damaged: what varies is not a setting, or lacks a value"
            )
        for row in rows:
            known = len(row) == len(vary)
            if not known or any(v not in vary[f] for f, v in zip(vary, row, strict=True)):
                raise UserError(f"{shown(file)} is damaged: a row lacks a value of some setting")
        return cls(Config.from_tables(tables, f"{shown(file)}: "), vary, seeds, rows or None)

    def differences(self, other: Sweep) -> list[str]:
        """Name what keeps ``other`` from going on with this sweep; it may have more of it."""
        if list(self.vary) != list(other.vary):
            names = [", ".join(s.vary) or "nothing but the seed" for s in (self, other)]
            return [f"{names[0]} varies, not {names[1]}"]
        varied = tuple(f"{FIELDS[field]}.{field}: " for field in self.vary)
        changes = [d for d in self.base.differences(other.base) if not d.startswith(varied)]
        for field, values in self.vary.items():
            if not all(value in other.vary[field] for value in values):
                before, now = (", ".join(map(str, v)) for v in (values, other.vary[field]))
                changes.append(f"{field}: {before}, not {now}")
        if self.rows != (other.rows and other.rows[: len(self.rows or ())]):
            changes.append("other combinations of them")
        if self.seeds > other.seeds:
            changes.append(f"{self.seeds} seeds, not {other.seeds}")
        return changes


def section_of(field: str) -> str:
    """Return the section of a setting, or raise naming the nearest one."""
    if field not in FIELDS:
        raise UserError(f"there is no setting {one_line(repr(field))}{nearest(field, FIELDS)}")
    return FIELDS[field]


def parse_vary(texts: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Read what varies from the command line; whether values are allowed is checked later.

    >>> parse_vary(["d_mlp=512,1024", "learning-rate=1e-3", "bias=true,false"])
    {'d_mlp': (512, 1024), 'learning_rate': (0.001,), 'bias': (True, False)}
    >>> parse_vary(["d_mlp=64,32-64-16"])  # 64 for all layers, then one number for each
    {'d_mlp': (64, (32, 64, 16))}
    """
    vary: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        field, equals, values = text.partition("=")
        field = field.strip().replace("-", "_")
        if not equals:
            raise UserError(f"--vary {one_line(text)}: write it as in --vary d_mlp=512,1024,2048")
        section_of(field)  # raises for one that is unknown
        if field in vary:
            raise UserError(f"--vary {field} is given twice; put all its values into one")
        vary[field] = tuple(parse_value(field, value.strip()) for value in values.split(","))
    return vary


def parse_value(field: str, text: str) -> Any:
    """Read a setting's value; one that cannot be read stays a text, which the settings refuse.

    >>> parse_value("bias", "false"), parse_value("d_mlp", "32-64"), parse_value("seed", "x")
    (False, (32, 64), 'x')
    """
    described = next(f for f in dataclasses.fields(SECTIONS[section_of(field)]) if f.name == field)
    kind = described.metadata["kind"]
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        if described.metadata["several"]:
            return tuple(kind(part.strip()) for part in text.split(";") if part.strip())
        if described.metadata["per_layer"] and "-" in text:
            return tuple(kind(part) for part in text.split("-"))
        return kind(text)
    except ValueError:
        return text


def value_name(value: Any) -> str:
    """Return a value as a part of a folder's name, on any system.

    >>> value_name((32, 64, 16)), value_name(True), value_name(1e-3), value_name(("freeze a=*",))
    ('32-64-16', 'true', '0.001', 'freeze_a__')
    """
    if isinstance(value, tuple):
        text = "-".join(map(str, value))
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^\w.+-]", "_", text)
