"""``minirelu figure``."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from minirelu.cli.found import PAGE_HELP, print_table, write_found
from minirelu.cli.say import say
from minirelu.errors import program


@click.command()
@click.argument("name", required=False)
@click.argument("folders", nargs=-1, type=click.Path(), metavar="[RUN]...")
@click.option("--list", "list_them", is_flag=True, help="Say which figures there are.")
@click.option(
    "--out",
    type=click.Path(),
    help="Write FILE.png and FILE.svg.  [default: in the run's figures/; of several runs, here]",
)
@click.option("--json", "json_file", type=click.Path(), help="Also write the numbers to a file.")
@click.option("--page", type=click.Path(), help=PAGE_HELP)
def figure(
    name: str | None,
    folders: tuple[str, ...],
    list_them: bool,
    out: str | None,
    json_file: str | None,
    page: str | None,
) -> None:
    """Draw one figure of a run, or of several.

    Without a name, it says which there are. Runs that differ in the seed only are drawn as
    their mean and range. A folder of runs, as a sweep makes it, stands for all of them.

    \b
    Examples:
      minirelu figure
      minirelu figure fig1 runs/small
      minirelu figure fig1 runs/small runs/small-2 --out seeds.png --json seeds.json
      minirelu figure fig3 sweeps/width
    """
    from minirelu.figures import CAPTIONS, KINDS, kind_of

    if name is None or list_them:
        for each, kind in KINDS.items():
            say(f"{each:14}{kind.what}  [{kind.takes}]")
        say(f"next          {program()} figure fig1 RUN")
        return
    kind = kind_of(name)

    from minirelu.figures.runs import open_runs
    from minirelu.figures.style import save
    from minirelu.runs.files import explained, write_text
    from minirelu.runs.markdown import table as markdown

    runs = open_runs(folders)
    kind.check(name, len(runs))
    target = _target(name, out, runs[0].folder if len(runs) == 1 else None)
    data = kind.data(runs)
    with explained("writing the figure"):
        target.parent.mkdir(parents=True, exist_ok=True)
        picture = save(kind.draw(data), target)
        say(f"figure  {picture}")
        say(f"        {picture.with_suffix('.svg')}")
        if json_file:
            write_text(Path(json_file), json.dumps(data, indent=1, allow_nan=False))
            say(f"data    {json_file}")
    table = data.get("table")
    if table:
        print_table(table)
        say()
    if page:
        text = markdown(table[0], table[1:]) if table else ""
        write_found({}, data, text, name, None, None, page, kind.draw)
    for i, row in enumerate(textwrap.wrap(CAPTIONS[name], 88)):
        say(f"{'' if i else 'read it':8}{row}")


def _target(name: str, out: str | None, run_folder: Path | None) -> Path:
    """Where to write, without .png or .svg."""
    from minirelu.errors import UserError, shown

    if out is None:
        return run_folder / "figures" / name if run_folder else Path(name)
    path = Path(out)
    if path.suffix.lower() not in ("", ".png", ".svg") or not path.name:
        raise UserError(f"--out {shown(out)}: a figure is written as .png and .svg")
    return path.with_suffix("")
