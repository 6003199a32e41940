"""The entry point: finds the command, and turns mistakes into one line and exit code 2."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

import minirelu
from minirelu.cli.bench import bench
from minirelu.cli.capacity import capacity
from minirelu.cli.check import check
from minirelu.cli.claims import claims
from minirelu.cli.compare import compare
from minirelu.cli.death import death
from minirelu.cli.effects import effects
from minirelu.cli.estimate import estimate
from minirelu.cli.export import export
from minirelu.cli.figure import figure
from minirelu.cli.prune import prune
from minirelu.cli.report import report
from minirelu.cli.sample import sample
from minirelu.cli.sparsity import sparsity
from minirelu.cli.specificity import specificity
from minirelu.cli.sweep import sweep
from minirelu.cli.train import train
from minirelu.cli.unused import unused
from minirelu.cli.wake import wake
from minirelu.errors import UserError, one_line


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(minirelu.__version__, prog_name="minirelu")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train small ReLU Transformers on a CPU, and see which of their hidden units fire.

    Begin with:  minirelu train
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


commands = (
    train, report, figure, compare, sample, sparsity, sweep, death, wake, specificity, prune,
    capacity, effects, unused, claims, estimate, bench, check, export,
)  # fmt: skip
for command in commands:
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code: 0, 2 for a mistake, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a character shows its code
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(arguments, prog_name="minirelu", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as e:
        code = _fail(e.format_message())
    except UserError as e:
        code = _fail(e)
    except OSError as e:
        code = _fail(f"{e.strerror or e}: {e.filename}" if e.filename else e)
    except MemoryError as e:
        code = _fail(f"not enough memory ({e}); choose a smaller model or more --micro-batches")
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped", err=True)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: object) -> int:
    click.echo(f"minirelu: {one_line(message)}", err=True)
    return 2
