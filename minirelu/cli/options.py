"""Options made from the settings' own descriptions, so that none is described twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from minirelu.config import PRESETS, SECTIONS, Config


class Numbers(click.ParamType):
    """Whole numbers with commas between them."""

    name = "integer[,...]"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """``"100,200"`` to (100, 200)."""
        if not isinstance(value, str):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a whole number, or several with commas", param, ctx)


class NumberPerLayer(Numbers):
    """One whole number, or several with commas between them."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """``"512"`` to 512, ``"512,256"`` to (512, 256)."""
        numbers = super().convert(value, param, ctx)
        return numbers[0] if isinstance(numbers, tuple) and len(numbers) == 1 else numbers


class SettingsCommand(click.Command):
    """A command whose help shows the settings of the preset or the file named beside it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look for preset and file first: ``--help`` is answered before other options are read."""
        lenient = click.Context(self, ctx.parent, resilient_parsing=True)
        ctx.obj, _, _ = self.make_parser(lenient).parse_args(list(args))
        return super().parse_args(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """Write the settings after the descriptions of their options."""
        preset, file = (ctx.obj.get(name) for name in ("preset", "config_file"))
        tables = Config.build(preset, file).tables()
        name = Path(file).name if file else preset or "small"
        for option in self.params:
            if isinstance(option, _SettingOption):
                value = tables[option.section][option.name]
                option.help = f"[{option.section}] {option.description} ({name}: {value})"
        return super().get_help(ctx)


class _SettingOption(click.Option):
    def __init__(self, *names: Any, section: str, description: str, **rest: Any) -> None:
        super().__init__(*names, **rest)
        self.section, self.description = section, description


def settings_options(command: Callable) -> Callable:
    """Add one option for every field of every section; unset ones arrive as None."""
    for section, kind in reversed(SECTIONS.items()):
        for f in reversed(dataclasses.fields(kind)):
            command = _option(section, f)(command)
    return command


def _option(section: str, f: dataclasses.Field) -> Callable:
    flag = "--" + f.name.replace("_", "-")
    kind, choices = f.metadata["kind"], f.metadata["choices"]
    if kind is bool:
        flag, kind = f"{flag}/--no-{flag[2:]}", None
    elif f.metadata["per_layer"]:
        kind = NumberPerLayer()
    elif f.metadata["several"] and kind is int:
        kind = Numbers()
    own = {"section": section, "description": f.metadata["help"]}
    if choices:  # what it may be is checked with the other settings, which name the nearest one
        own["metavar"] = f"[{'|'.join(choices)}]"
    if f.metadata["several"] and kind is str:
        own |= {"multiple": True}
    return click.option(flag, f.name, cls=_SettingOption, type=kind, default=None, **own)


def given_settings(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Sort the options that were given into their sections."""
    return {
        section: {
            f.name: values[f.name]
            for f in dataclasses.fields(kind)
            if values.get(f.name) not in (None, ())
        }
        for section, kind in SECTIONS.items()
    }


PRESET_HELP = f"Where to start from: {', '.join(PRESETS)}.  [default: small]"


SCHEDULER_HELP = (
    "Use the workers of a running Dask cluster, such as tcp://10.0.0.1:8786. They must share this "
    "file system, with the same paths. Needs:  pip install 'minirelu[cluster]'"
)


def threads_option(command: Callable) -> Callable:
    """Add ``--threads``. It is not a setting: results do not depend on it."""
    help = "Threads to compute with; results are the same for any number.  [default: all]"
    return click.option("--threads", type=int, help=help)(command)


def use_threads(threads: int | None) -> None:
    """Do what ``--threads`` says, before anything is computed."""
    if threads is not None:  # setting it loads the compiler, which a mistake should not wait for
        from minirelu.threads import set_threads

        set_threads(threads)
