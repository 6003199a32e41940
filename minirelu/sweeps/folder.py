"""The folder of a sweep: one run folder for each point, and the tables made of them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minirelu.errors import UserError, one_line, shown
from minirelu.runs.checkpoint import checkpoint_steps
from minirelu.runs.files import explained, locked, write_text
from minirelu.runs.prepare import create_run, create_run_like, refuse_taken, same_text
from minirelu.runs.run import Run, measured
from minirelu.sparsity.measures import probe_measures
from minirelu.sweeps.sweep import Point, Sweep


def check_folder(sweep: Sweep, folder: Path) -> None:
    """Raise a UserError, saying what differs, where a sweep cannot begin or go on."""
    if not (folder / "sweep.toml").is_file():
        refuse_taken(folder)
    elif any(folder.glob("*/config.toml")):  # without a run it may be any other
        differences = Sweep.from_folder(folder).differences(sweep)
        if differences:
            raise UserError(
                f"{shown(folder)} holds another sweep ({one_line('; '.join(differences))}); "
                "choose another --out"
            )


def open_folder(sweep: Sweep, folder: Path) -> None:
    """Make a sweep's folder; raises as :func:`check_folder` does."""
    check_folder(sweep, folder)
    with explained(f"making the folder {shown(folder)}"):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "sweep.toml", sweep.to_toml())


def steps_done(folder: Path, point: Point) -> int:
    """Steps of a run that are safe on disk."""
    return (checkpoint_steps(folder / point.name / "checkpoints") or [0])[-1]


def last_step(folder: Path, point: Point) -> int:
    """Return the last step that a run in training has made, as its metrics have it."""
    try:
        with open(folder / point.name / "metrics.jsonl", "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - 20_000))
            return int(json.loads(f.read().split(b"\n")[-2])["step"])
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return 0


def is_finished(folder: Path, point: Point) -> bool:
    """Whether a run has reached its last step."""
    return steps_done(folder, point) == point.settings.train.steps


def open_run(folder: Path, point: Point) -> Run | None:
    """Open a run of the sweep, if it has been made; refuse one with other settings."""
    if not (folder / point.name / "config.toml").is_file():
        return None
    run = Run.open(folder / point.name)
    wanted = point.settings
    if run.config.d_vocab < wanted.model.d_vocab:  # the text gave fewer tokens than asked for
        model = dataclasses.replace(wanted.model, d_vocab=run.config.d_vocab)
        wanted = dataclasses.replace(wanted, model=model)
    changed = run.settings.differences(wanted)
    if changed:
        raise UserError(
            f"{shown(run.folder)} is a run with other settings ({one_line('; '.join(changed))}); "
            "remove it, or choose another --out"
        )
    return run


def prepare_run(
    folder: Path,
    point: Point,
    earlier: list[tuple[Point, Run]],
    on_read: Callable[[int, int], None] = lambda n, of: None,
) -> Run:
    """Open the run of a point, or make its folder.

    Runs of one sweep read the same text. Where its tokens are the same too, they are copied from
    an earlier run; where they are not, the text is read again.

    Raises
    ------
    UserError
        as :func:`create_run` does; or the text has changed since an earlier run was made.
    """
    run = open_run(folder, point)
    same = [other for p, other in earlier if same_text(p.settings, point.settings)]
    if run is None and same:
        run = create_run_like(same[0], point.settings, folder / point.name)
    if run is None:
        run = create_run(point.settings, folder / point.name, on_read)
    for _, other in earlier:
        same_corpus = other.settings.text == run.settings.text
        if same_corpus and other.corpus["sha256"] != run.corpus["sha256"]:
            raise UserError(
                f"the text has changed between the runs {shown(other.folder)} and "
                f"{shown(run.folder)}, so they cannot be compared; remove one of them, or choose "
                "another --out"
            )
    return run


def finished_runs(folder: Path, sweep: Sweep) -> list[tuple[Point, Run]]:
    """Return the runs that have reached their last step, in the order of the points."""
    return [
        (point, Run.open(folder / point.name))
        for point in sweep.points()
        if is_finished(folder, point)
    ]


def table(runs: list[tuple[Point, Run]]) -> list[dict[str, Any]]:
    """Return the last probes of finished runs: one row for each run and layer.

    In a row are what varies, the seed, the layer, where the run has come to, the measures (None
    where the run lacks one), and what they depend on.
    """
    rows = []
    for point, run in runs:
        probe, versions = run.probes()[-1], run.made_with
        reached = {name: probe[name] for name in ("step", "tokens", "val_loss")}
        depends_on = {name: probe[name] for name in ("probe_tokens", "batch_tokens")}
        depends_on |= {"corpus_sha256": run.corpus["sha256"]}
        depends_on |= {f"{name}_version": versions.get(name) for name in ("minirelu", "numpy")}
        for l in range(run.config.n_layers):
            row = {**point.values, "layer": l, **reached}
            for measure in probe_measures():
                row[measure.name] = measured(probe, measure.name, run.config.n_layers)[l]
            rows.append(row | depends_on)
    return rows


def write_tables(folder: Path, sweep: Sweep) -> None:
    """Write ``sweep.csv``, the :func:`table`, and ``sweep.json``: settings, versions and texts."""
    runs = finished_runs(folder, sweep)
    rows, text = table(runs), io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    seed = sweep.base.train.seed
    content = {
        "settings": sweep.base.tables(),
        "vary": sweep.vary,
        "seeds": list(range(seed, seed + sweep.seeds)),
        "runs": [
            {
                "run": point.name,
                **point.values,
                "d_vocab": run.config.d_vocab,
                "corpus_sha256": run.corpus["sha256"],
                "made_with": run.made_with,
                "probe": run.probes()[-1],
            }
            for point, run in runs
        ],
    }
    with explained(f"writing the tables of {shown(folder)}"):
        write_text(folder / "sweep.csv", text.getvalue())
        write_text(folder / "sweep.json", json.dumps(content, indent=1))


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from running the same sweep at the same time."""
    with (
        open(folder / ".lock", "ab") as file,
        locked(file, f"the sweep in {shown(folder)} is being run by another process"),
    ):
        yield
