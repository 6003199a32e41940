"""``minirelu check``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from minirelu.cli.say import say
from minirelu.errors import program


@click.command(short_help="Compare gradients with differences, kernels with the reference.")
@click.option("--all", "show_all", is_flag=True, help="Show every row, not one for each operation.")
@click.option("--json", "json_file", type=click.Path(), help="Also write the table to a file.")
def check(show_all: bool, json_file: str | None) -> None:
    """Compare gradients with central differences, and kernels with the reference.

    For anyone who changes the code: every backward of model/ against differences of its forward,
    then the kernels against model/, operation by operation, with every activation function and both
    routes of the MLP, Adam, and the cache of `sample`. Takes a few seconds. Exits with code 1 if
    something differs, and says where to look.

    \b
    Examples:
      minirelu check
      minirelu check --all
    """
    from minirelu.check.gradients import cache_rows, gradient_rows
    from minirelu.check.kernels import kernel_rows
    from minirelu.check.rows import Row
    from minirelu.runs.files import explained, write_text

    tables = {
        "gradients of model/ against central differences, float64": gradient_rows(),
        "token by token against the whole sequence, float64": cache_rows(),
        "kernels against model/, float32": kernel_rows(),
    }
    rows: list[Row] = []
    for heading, results in tables.items():
        say(f"\n{heading}\n\n  {'operation':36}{'tensor':42}{'error':>9}{'allowed':>9}")
        part = list(results)
        worst = {r.operation: max((q for q in part if q.operation == r.operation),
                                  key=lambda q: (not q.fine, q.error)) for r in part}  # fmt: skip
        for row in part if show_all else worst.values():
            mark = "" if row.fine else "   DIFFERS"
            say(f"  {row.operation:36}{row.tensor:42}{row.error:9.1e}{row.limit:9.0e}{mark}")
        rows += part
    if json_file:
        with explained(f"writing {json_file}"):
            records = [{**row._asdict(), "fine": row.fine} for row in rows]
            write_text(Path(json_file), json.dumps(records, indent=1))
        say(f"\nnumbers  {json_file}")
    wrong = [row for row in rows if not row.fine]
    if wrong:
        first = wrong[0]
        say(
            f"\n{len(wrong)} of {len(rows)} comparisons differ, first {first.operation}: ", nl=False
        )
        say(f"{first.tensor}\nlook at  {first.look_at}")
        say(f"next     {program()} train --compute reference  trains with model/ as it is")
        raise SystemExit(1)
    say(f"\nall {len(rows)} comparisons agree")
