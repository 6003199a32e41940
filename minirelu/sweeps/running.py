"""Running a sweep: what is not finished is trained, here, in processes, or on a cluster."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.errors import UserError, one_line
from minirelu.estimate import (
    available_memory,
    flops,
    memory,
    refuse_too_large,
    run_seconds,
)
from minirelu.runs.run import Run
from minirelu.sweeps.folder import (
    is_finished,
    locked_folder,
    open_folder,
    prepare_run,
    steps_done,
    write_tables,
)
from minirelu.sweeps.sweep import Point, Sweep
from minirelu.training.trainer import train
from minirelu.workers import in_own_process, plain_failures, threads_each

_LOOK_EVERY = 0.5  # seconds


def train_run(folder: str, stop: str) -> bool:
    """Train a run until its last step, or until a file named ``stop`` exists.

    Returns
    -------
    bool
        True if the last step was reached.
    """
    if os.path.exists(stop):
        return False
    return train(Run.open(folder), should_stop=lambda: os.path.exists(stop))


def _in_own_process(threads: int, folder: str, stop: str) -> bool:
    given_up = partial(os.path.exists, stop)
    return bool(in_own_process(threads, given_up, train_run, folder, stop))


@dataclass
class Watching:
    """What the caller of :func:`run_sweep` wants to hear, and may say."""

    should_stop: Callable[[], bool] = lambda: False
    on_read: Callable[[int, int], None] = lambda n, of: None  # as for create_run
    on_look: Callable[[], None] = lambda: None  # several times a second
    on_finished: Callable[[Point], None] = lambda point: None
    on_failed: Callable[[Point, str], None] = lambda point, why: None


def run_sweep(
    sweep: Sweep,
    folder: str | Path,
    workers: int = 1,
    cluster: Executor | None = None,
    watching: Watching | None = None,
) -> dict[str, str]:
    """Train every run of a sweep that is not finished; tables are written after each.

    Runs are the same bits wherever they are trained, if processors and versions are the same.

    Parameters
    ----------
    sweep : Sweep
    folder : path
        of the sweep; on a file system that a cluster's workers share.
    workers : int
        1: one run after the other, in this process; more: that many processes side by side. One
        that dies costs the steps since its run's last checkpoint.
    cluster : Executor, optional
        :func:`minirelu.workers.cluster`, instead of ``workers``.
    watching : Watching, optional

    Returns
    -------
    dict
        the runs that failed (a loss that is NaN, a worker that died again and again), and why.

    Raises
    ------
    UserError
        the folder holds something else, or the text is wrong: nothing is trained.

    Examples
    --------
    >>> run_sweep(Sweep.build("tiny"), "README.md/x")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    minirelu.errors.UserError: ...
    """
    folder, watching = Path(folder), watching or Watching()
    threads_each(workers)  # raises for fewer than one
    open_folder(sweep, folder)

    def on_finished(point: Point) -> None:
        write_tables(folder, sweep)
        watching.on_finished(point)

    watched = dataclasses.replace(watching, on_finished=on_finished)
    failures = run_points(sweep.points(), folder, workers, cluster, watched)
    write_tables(folder, sweep)
    return failures


def run_points(
    points: Sequence[Point],
    folder: Path,
    workers: int = 1,
    cluster: Executor | None = None,
    watching: Watching | None = None,
) -> dict[str, str]:
    """Train those of some runs in a folder that are not finished; as :func:`run_sweep` does."""
    watching = watching or Watching()
    threads = threads_each(workers)
    with locked_folder(folder):
        if cluster is not None:
            submit: Callable[..., Future] = partial(cluster.submit, train_run)  # type: ignore
            return _Running(points, folder, submit, watching).run()
        work: Any = train_run if workers == 1 else partial(_in_own_process, threads)
        with ThreadPoolExecutor(workers) as pool:
            try:
                return _Running(points, folder, partial(pool.submit, work), watching).run()
            except KeyboardInterrupt:
                for process in multiprocessing.active_children():
                    process.terminate()
                raise


class _Running:
    """The runs that are being trained, and those that failed."""

    def __init__(
        self,
        points: Sequence[Point],
        folder: Path,
        submit: Callable[..., Future],
        watching: Watching,
    ) -> None:
        self.points, self.folder, self.submit, self.watching = points, folder, submit, watching
        # Every process that trains a run looks for this file after every step.
        self.stop = folder.resolve() / ".stop"
        self.at_work: dict[Future, Point] = {}
        self.failures: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        """Give out all runs, wait for them, and return those that failed."""
        self.stop.unlink(missing_ok=True)
        try:
            self.give_out()
            while self.at_work:
                self.look(_LOOK_EVERY)
        except BaseException as e:
            self.stop.touch()
            if not isinstance(e, KeyboardInterrupt):
                wait(self.at_work)
            raise
        self.stop.unlink(missing_ok=True)
        return self.failures

    def give_out(self) -> None:
        """Make the folders of all runs, and give out each as soon as its own is ready."""
        prepared: list[tuple[Point, Run]] = []
        for point in self.points:
            run = prepare_run(self.folder, point, prepared, self.watching.on_read)
            prepared.append((point, run))
            if not is_finished(self.folder, point):
                future = self.submit(str(run.folder.resolve()), str(self.stop))
                self.at_work[future] = point
            self.look(0)
            if self.stop.exists():
                return

    def look(self, seconds: float) -> None:
        """Wait this long; see which runs have ended, and whether to stop."""
        if self.watching.should_stop() and not self.stop.exists():
            self.stop.touch()
        for future in wait(self.at_work, seconds, FIRST_COMPLETED).done:
            self.ended(self.at_work.pop(future), future)
        self.watching.on_look()

    def ended(self, point: Point, future: Future) -> None:
        """Write down what became of a run."""
        try:
            with plain_failures():
                finished = future.result()
        except (UserError, OSError, MemoryError) as e:
            self.failures[point.name] = one_line(e)
            self.watching.on_failed(point, one_line(e))
            return
        if finished:
            self.watching.on_finished(point)


def refuse_too_many(workers: int, points: list[Point]) -> None:
    """Raise, with advice, where the largest runs do not fit in this machine's memory together."""
    threads_each(workers)  # raises for fewer than one
    for point in points:
        refuse_too_large(point.settings)
    needed = workers * max(sum(memory(point.settings).values()) for point in points)
    available = available_memory()
    if available is not None and needed > available:
        raise UserError(
            f"{workers} runs at a time need up to {needed / 1e9:.1f} GB, and this machine has "
            f"{available / 1e9:.1f}; choose fewer --workers"
        )


def work_left(folder: Path, point: Point) -> float:
    """Additions and multiplications that a run still needs, about."""
    steps = point.settings.train.steps - steps_done(folder, point)
    return steps * flops(point.settings, share_on=0.2)


def expected_seconds(folder: Path, points: list[Point]) -> float:
    """Seconds that these runs should take here, one after the other.

    The smallest and the largest are timed, for a few seconds; the others lie between, by their
    arithmetic.
    """
    left = {point.name: work_left(folder, point) for point in points}
    if not any(left.values()):
        return 0.0
    ordered = sorted((p for p in points if left[p.name]), key=lambda p: left[p.name])
    ends = [ordered[0], ordered[-1]]
    same = ends[0].settings.model == ends[1].settings.model
    seconds = []
    for point in ends[:1] if same else ends:
        done = steps_done(folder, point)
        steps = point.settings.train.steps - done
        seconds.append(run_seconds(point.settings, steps, done)[0])
    if same:
        return sum(left.values()) * seconds[0] / left[ends[0].name]
    at = [left[point.name] for point in ends]
    return float(np.interp([left[p.name] for p in ordered], at, seconds).sum())
