"""``minirelu bench``."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minirelu.cli.options import threads_option, use_threads
from minirelu.cli.say import say
from minirelu.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from minirelu.config import ModelConfig
    from minirelu.model.parameters import Parameters

PARTS = ("mlp", "step", "adam", "threads", "watching", "first", "memory")


@click.command()
@click.option("--json", "json_file", type=click.Path(), help="Also write every number to a file.")
@click.option("--roofline", type=click.Path(), help="Also draw this figure (.png or .svg).")
@click.option("--rounds", default=5, show_default=True, help="How often contestants take turns.")
@click.option("--peers", help="Of torch, torch.compile, jax.  [default: those installed]")
@click.option("--widths", default="2048,8192", show_default=True, help="d_mlp of the whole steps.")
@click.option("--run", "runs", multiple=True, help="Also a step from the weights of this run.")
@click.option("--step", type=int, help="Which weights of the runs.  [default: the last]")
@click.option("--only", help=f"Some of: {', '.join(PARTS)}.  [default: all of them]")
@threads_option
def bench(
    json_file: str | None,
    roofline: str | None,
    rounds: int,
    peers: str | None,
    widths: str,
    runs: tuple[str, ...],
    step: int | None,
    only: str | None,
    threads: int | None,
) -> None:
    """Measure speed, in turn with PyTorch and JAX.

    It measures the MLP, a training step, and AdamW. Contestants compute the same from the same
    weights. Ratios are a peer's time over ours, median of the rounds, with the smallest and
    largest. Without a peer, what can be said is how near the machine's own limits we are.
    PyTorch comes with:  pip install "minirelu[bench]"

    \b
    Examples:
      minirelu bench
      minirelu bench --only mlp --roofline roofline.png
      minirelu bench --run runs/small --json bench.json
    """
    use_threads(threads)
    if rounds < 1:
        raise UserError(f"--rounds: {rounds} is not allowed; it must be 1 or more")
    if roofline and Path(roofline).suffix not in (".png", ".svg"):
        raise UserError(f"--roofline: {roofline} must end in .png or .svg")
    wanted = _names(only, PARTS, "--only") if only is not None else list(PARTS)
    chosen = _peers(peers)
    models = _models(_numbers(widths), runs, step) if "step" in wanted else []

    results: dict[str, Any] = {}
    try:
        _run(results, wanted, chosen, models, rounds, roofline)
    finally:  # an interrupted benchmark keeps what it has measured
        if json_file and results:
            from minirelu.runs.files import explained, write_text

            with explained(f"writing {json_file}"):
                write_text(Path(json_file), json.dumps(results, indent=1))
            say(f"\nnumbers  {json_file}")


def _run(
    results: dict[str, Any], wanted: list[str], chosen: list[str],
    models: list[tuple[str, ModelConfig, Parameters, np.ndarray, np.ndarray]],
    rounds: int, roofline: str | None,
) -> None:  # fmt: skip
    """Measure, print, and collect into ``results``."""
    from minirelu.bench import benchmarks, child, machine
    from minirelu.bench import peers as peer
    from minirelu.estimate import flops
    from minirelu.runs.prepare import made_with
    from minirelu.threads import n_threads

    results["made_with"] = {**made_with(), **{name: peer.version(name) for name in chosen}}
    results["rounds"] = rounds
    peak, copy = machine.matmul_flops(), machine.copy_bytes()
    results["machine"] = {"matmul_flops": peak, "copy_bytes": copy}
    threads = n_threads()
    say(f"threads   {threads}")
    say(f"machine   matrix product {peak / 1e9:.0f} GFLOP/s, copy {copy / 1e9:.0f} GB/s")
    say(f"peers     {', '.join(chosen) or 'none installed'}\n")

    if "mlp" in wanted:
        _mlp(results, chosen, rounds, peak)
    if "step" in wanted:
        say("A training step: forward, backward, clipping, AdamW; 2048 tokens, 6 layers")
        _heading(chosen, "minirelu", "GFLOP/s")
        results["step"] = []
        for name, config, params, tokens, targets in models:
            times, losses = benchmarks.step_times(params, tokens, targets, config, chosen, rounds)
            work = flops(_settings(config, tokens.shape[0]))
            rate = work / statistics.median(times["minirelu"]) / 1e9
            _row(name, times, chosen, f"{rate:.0f}")
            results["step"].append({"model": name, "seconds": times, "first_loss": losses})
            _same_loss(losses)
        say("(GFLOP/s as if every hidden unit were on)\n")
    if "adam" in wanted:
        times = benchmarks.adam_times(50_000_000, chosen, rounds)
        results["adam"] = times
        seconds = statistics.median(times["minirelu"])
        moved = 50_000_000 * 4 * 8 / seconds  # norm: g; update: p, g, m, v read, p, m, v written
        say(
            f"Norm, clipping and AdamW over 50 M parameters: {seconds * 1e3:.0f} ms, "
            f"{moved / 1e9:.0f} GB/s, {moved / copy:.2f} of the copy"
        )
        for name in set(times) - {"minirelu"}:
            say(f"  {name}: {_ratio(times, name)}")
        say()
    if "threads" in wanted and threads > 1:
        times = benchmarks.thread_times(2048, rounds, threads)
        results["threads"] = times
        faster = _ratio(times, "1 threads", f"{threads} threads")
        say(f"One thread against {threads}, a step of preset plain: {faster}\n")
    if "watching" in wanted:
        times = benchmarks.watching_times(2048, rounds)
        results["watching"] = times
        cost = _ratio(times, "probe", "forward")
        say(f"A probe against the forward pass of its tokens, preset plain: {cost}\n")
    if "first" in wanted:
        results["first"] = child.first_steps()
        for state, seconds in results["first"].items():
            say(
                f"First step of a process, {state} cache: {seconds['first_step']:.1f} s "
                f"(and {seconds['imports_and_weights']:.1f} s of imports and initial weights)"
            )
        say()
    if "memory" in wanted:
        for d_mlp in (2048, 8192):
            peaks = child.peak_memory(d_mlp, chosen)
            if peaks is None:
                continue
            results.setdefault("memory", {})[str(d_mlp)] = peaks
            text = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in peaks.items())
            say(f"Peak memory of a process that trains, d_mlp {d_mlp}: {text}")
    if roofline:
        _roofline(results, roofline, peak, copy)


def _mlp(results: dict[str, Any], chosen: list[str], rounds: int, peak: float) -> None:
    from minirelu.bench import benchmarks

    say("One MLP, forward and backward: 2048 tokens, d_model 128, d_mlp 8192")
    _heading(chosen, "auto", "dense", "sparse")
    floor = 2 * 2048 * 128 * 8192 / peak
    results["mlp"] = []
    for share in benchmarks.SHARES_ON:
        times = benchmarks.mlp_times(8192, share, chosen, rounds)
        routes = [f"{statistics.median(times[r]) * 1e3:.0f} ms" for r in ("dense", "sparse")]
        _row(f"{100 * share:.0f} % on", times, chosen, *routes)
        results["mlp"].append({"share_on": share, "seconds": times})
    say(f"(at the machine's peak: one product {floor * 1e3:.0f} ms, all six {floor * 6e3:.0f})\n")


def _roofline(results: dict[str, Any], file: str, peak: float, copy: float) -> None:
    from minirelu.bench.rates import kernel_rates
    from minirelu.figures.roofline import draw_roofline
    from minirelu.figures.style import save

    rates = kernel_rates()
    results["kernels"] = [rate._asdict() for rate in rates]
    title = "Kernels against the machine's limits (2048 tokens, d_mlp 8192, 5 % on)"
    path = Path(file)
    save(draw_roofline(rates, peak, copy, title), path.with_suffix(""))
    say(f"figure   {path.with_suffix('.png')} and .svg")


def _models(
    widths: list[int], runs: tuple[str, ...], step: int | None
) -> list[tuple[str, ModelConfig, Parameters, np.ndarray, np.ndarray]]:
    """Name, configuration, weights and batch of every step to measure."""
    from minirelu.bench import benchmarks
    from minirelu.model.parameters import init_params
    from minirelu.runs.run import Run
    from minirelu.text.batches import batch

    models = []
    for folder in runs:
        run = Run.open(folder)
        at = run.steps[-1] if step is None and run.steps else step
        params, config = run.params(at), run.config
        n = max(1, 2048 // config.n_ctx)
        sequences = batch(run.train_tokens, (at or 0) + 1, n, config.n_ctx, 0)
        name = f"{run.folder.name}, step {at}"
        models.append((name, config, params, sequences[:, :-1].copy(), sequences[:, 1:].copy()))
    for d_mlp in widths:
        config = benchmarks.model_of_width(d_mlp)
        made = (config, init_params(config), *benchmarks.made_batch(config))
        models.append((f"d_mlp {d_mlp}, new", *made))
    return models


def _settings(config: ModelConfig, batch_size: int) -> Any:
    from minirelu.config import Config, TextConfig, TrainConfig

    return Config(config, TextConfig(), TrainConfig(batch_size=batch_size))


def _heading(chosen: list[str], *ours: str) -> None:
    columns = [f"{'':24}", *(f"{name:>10}" for name in ours)]
    say("  ".join([*columns, *(f"{'x ' + name:>24}" for name in chosen)]))


def _row(name: str, times: dict[str, list[float]], chosen: list[str], *more: str) -> None:
    ours = f"{statistics.median(times['minirelu']) * 1e3:.0f} ms"
    columns = [f"{name:24}", f"{ours:>10}", *(f"{text:>10}" for text in more)]
    say("  ".join([*columns, *(f"{_ratio(times, peer):>24}" for peer in chosen)]))


def _ratio(times: dict[str, list[float]], name: str, ours: str = "minirelu") -> str:
    """'3.1 (2.9 to 3.4)': how many times as long ``name`` took."""
    rounds = [a / b for a, b in zip(times[name], times[ours], strict=True)]
    return f"{statistics.median(rounds):.2f} ({min(rounds):.2f} to {max(rounds):.2f})"


def _same_loss(losses: dict[str, float]) -> None:
    ours = losses["minirelu"]
    for name, loss in losses.items():
        if abs(loss - ours) > 1e-3 * abs(ours):
            say(f"  careful: the loss of {name} is {loss:.5f}, ours {ours:.5f}")


def _peers(given: str | None) -> list[str]:
    """Return the peers to compare with; raise for one that is unknown or not installed."""
    from minirelu.bench.peers import PEERS, installed

    if given is None:
        return installed()
    chosen = _names(given, PEERS, "--peers") if given else []
    for name in chosen:
        if name not in installed():
            raise UserError(f"--peers: {name} is not installed; try pip install {name[:5]}")
    return chosen


def _names(text: str, known: tuple[str, ...], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UserError(f"{option}: {name!r} is unknown; there are {', '.join(known)}")
    return names


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [0]
    if any(not 1 <= n <= 1 << 22 for n in numbers):
        raise UserError(f"--widths: {text!r} must be whole numbers with commas between them")
    return numbers
