"""``minirelu estimate``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.options import (
    PRESET_HELP,
    SettingsCommand,
    given_settings,
    settings_options,
    threads_option,
    use_threads,
)
from minirelu.cli.say import say
from minirelu.config import Config
from minirelu.errors import UserError, one_line, program

if TYPE_CHECKING:
    from minirelu.estimate import StepTime


@click.command(cls=SettingsCommand)
@click.option("--preset", help=PRESET_HELP)
@click.option("--config", "config_file", type=click.Path(), help="Settings from a TOML file.")
@click.option("--json", "json_file", type=click.Path(), help="Also write the numbers to a file.")
@threads_option
@settings_options
def estimate(
    preset: str | None,
    config_file: str | None,
    json_file: str | None,
    threads: int | None,
    **values: Any,
) -> None:
    """Say what a training would need: memory, arithmetic, time.

    Takes the same settings as `minirelu train`, starts nothing, and measures on this machine
    for a few seconds.

    \b
    Examples:
      minirelu estimate
      minirelu estimate --preset paper --steps 2000
      minirelu estimate --d-mlp 16384 --n-layers 10
    """
    from minirelu.estimate import (
        available_memory,
        command_seconds,
        flops,
        memory,
        refuse_too_large,
    )
    from minirelu.model.parameters import n_params
    from minirelu.runs.files import explained, write_text

    use_threads(threads)
    settings = Config.build(preset, config_file, given_settings(values))
    parts, available = memory(settings), available_memory()
    needed = sum(parts.values())
    say(f"parameters  {n_params(settings.model):,}")
    say(f"memory      {memory_text(settings)}, at the peak:")
    for name, size in parts.items():
        say(f"            {size / 1e6:9,.0f} MB  {name}")
    train = settings.train
    say(
        f"arithmetic  {flops(settings) / 1e9:,.1f} GFLOP a step with all hidden units on, "
        f"{flops(settings, 0.05) / 1e9:,.1f} with 5 %"
    )
    refuse_too_large(settings)
    seconds, each = command_seconds(settings)
    say(f"time        {time_text(train.steps, seconds, each)}")
    if json_file:
        numbers = {
            "settings": settings.tables(),
            "parameters": n_params(settings.model),
            "memory_bytes": {**parts, "total": needed, "machine": available},
            "flop_per_step": {"all_on": flops(settings), "5_percent_on": flops(settings, 0.05)},
            "seconds_per_step": {"at_first": each.at_first, "once_sparse": each.once_sparse},
            "seconds": sum(seconds.values()),
            "seconds_by_part": seconds,
        }
        with explained(f"writing {json_file}"):
            write_text(Path(json_file), json.dumps(numbers, indent=1))
        say(f"numbers     {json_file}")
    say(f"next        {program()} train, with the same options")


def memory_text(settings: Config) -> str:
    """'0.5 of 25 GB'."""
    from minirelu.estimate import available_memory, memory

    available = available_memory()
    of = f" of {available / 1e9:.1f}" if available else ""
    return f"about {sum(memory(settings).values()) / 1e9:.1f}{of} GB"


def time_text(steps: int, seconds: dict[str, float], each: StepTime) -> str:
    """Time in all, by part, and of a step.

    >>> from minirelu.estimate import StepTime
    >>> print(time_text(700, {"training": 180, "drawing": 8}, StepTime(0.31, 0.21)))
    about 3 min: training 3 min, drawing 8 s; 700 steps, 0.31 s each at first, 0.21 once sparse
    """
    parts = ", ".join(f"{name} {duration(part)}" for name, part in seconds.items())
    return (
        f"about {duration(sum(seconds.values()))}: {parts}; {steps} steps, "
        f"{each.at_first:.2g} s each at first, {each.once_sparse:.2g} once sparse"
    )


def duration(seconds: float) -> str:
    """Seconds in words: '40 s', '5 min', '3.2 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def seconds_of(text: str) -> float:
    """Read a ``--budget``: '90s', '30m', '3.2h'."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * units[unit]
        if not 0 <= seconds < math.inf:
            raise ValueError
        return seconds
    except (ValueError, KeyError):
        raise UserError(f"--budget: {one_line(text)} is not like 30m or 2h") from None
