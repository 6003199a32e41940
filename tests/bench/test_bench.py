"""The benchmark measures what it says: equal work, honest ratios, valid files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from helpers import check_fails_plainly, command, random_params, random_tokens

import minirelu as mr
from minirelu.bench import benchmarks, child, machine, timing
from minirelu.bench.rates import Rate
from minirelu.cli.estimate import duration
from minirelu.figures.roofline import draw_roofline
from minirelu.kernels import mlp_route


def test_contestants_take_turns():
    order: list[str] = []
    times = timing.alternate(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2
    )
    assert order == ["a", "a", "b", "b"] * 3  # each is called once untimed, then timed
    assert [len(t) for t in times.values()] == [2, 2]


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_the_mlp_has_the_density_it_says(share):
    a = benchmarks.mlp_arrays(600, share, N=512, C=32)
    assert np.mean(a["x"] @ a["W_in"].T + a["b_in"] > 0) == pytest.approx(share, rel=0.15)


def test_our_step_is_a_training_step():
    config = mr.ModelConfig(1, 2, 8, 20, n_ctx=8, d_vocab=30)
    params = random_params(config, dtype=np.float32)
    tokens = random_tokens(config, 2, 8)
    before = params.flat.copy()
    step = benchmarks.OurStep(params, tokens, tokens, config, mr.TrainConfig(), 1e-2)
    losses = [step() for _ in range(30)]
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(params.flat, before)  # others start from the same weights


def test_machine_limits_are_plausible():
    assert 1e8 < machine.matmul_flops(rounds=1) < 1e15
    assert 1e8 < machine.copy_bytes(rounds=1) < 1e14


def test_roofline_figure_has_every_kernel():
    groups = ["MLP, dense", "MLP, sparse", "attention", "element by element"]
    rates = [Rate(f"kernel {i}", g, 10.0 ** (9 + i), 1e9, 0.1) for i, g in enumerate(groups)]
    figure = draw_roofline(rates, 2e11, 4e10, "title")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [f"{i + 1}  kernel {i}" for i in range(4)]
    axes = figure.axes[0]
    assert "FLOP per byte" in axes.get_xlabel() and axes.get_ylabel() == "GFLOP/s"


def test_bench_writes_its_numbers(tmp_path, monkeypatch):
    for name in ("thread_times", "watching_times"):  # of a narrower model
        real = getattr(benchmarks, name)
        monkeypatch.setattr(benchmarks, name, lambda d_mlp, *rest, real=real: real(64, *rest))
    file = tmp_path / "bench.json"
    result = command(
        "bench", "--only", "threads,watching", "--rounds", 1, "--peers", "", "--json", file
    )
    assert result.returncode == 0, result.stderr
    assert "none installed" in result.stdout and "A probe against the forward" in result.stdout
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["machine"]["matmul_flops"] > 0 and len(written["watching"]["probe"]) == 1
    assert written["made_with"]["minirelu"] == mr.__version__


def test_estimate_prints_and_writes_the_same_numbers(tmp_path):
    file = tmp_path / "estimate.json"
    result = command("estimate", "--preset", "tiny", "--json", file)
    assert result.returncode == 0, result.stderr
    for word in ("parameters  43,904", "hidden units", "GFLOP", "s each at first", "next"):
        assert word in result.stdout
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["parameters"] == 43904
    assert written["memory_bytes"]["total"] == sum(
        size for name, size in written["memory_bytes"].items() if name not in ("total", "machine")
    )
    parts = written["seconds_by_part"]
    assert list(parts) == ["starting", "reading", "training", "drawing"]
    assert written["seconds"] == sum(parts.values())
    line = re.search("^time.*", result.stdout, re.MULTILINE).group()
    shown = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items())
    assert f"about {duration(written['seconds'])}: {shown}; 400 steps" in line


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--peers", "tensorflow"], ["--peers", "tensorflow", "torch.compile"]),
        (["--only", "everything"], ["--only", "everything", "mlp"]),
        (["--rounds", 0], ["--rounds", "1 or more"]),
        (["--widths", "12,x"], ["--widths"]),
        (["--threads", 0], ["threads: 0"]),
        (["--roofline", "a.pdf"], [".png or .svg"]),
        (["--run", "nowhere"], ["nowhere"]),
    ],
)
def test_mistakes_are_named(arguments, words, tmp_path):
    check_fails_plainly(command("bench", *arguments, cwd=tmp_path), *words)


def test_peak_memory_of_a_child_excludes_its_parent():
    peaks = child.peak_memory(64, [])
    if peaks is not None:
        assert 5e7 < peaks["minirelu"] < 3e9


@pytest.mark.referee
def test_peers_compute_the_same():
    """A benchmark against something else would be none: same loss, and the same next loss."""
    from minirelu.bench import peers

    for bias in (True, False):
        config = mr.ModelConfig(2, 2, 16, 40, n_ctx=12, d_vocab=50, init="nanodo", bias=bias)
        params, tokens = mr.init_params(config), random_tokens(config, 3, 12)
        targets = random_tokens(config, 3, 12, seed=1)
        given = (params, tokens, targets, config, mr.TrainConfig(), 1e-2)
        ours = benchmarks.OurStep(*given)
        expected = [ours() for _ in range(5)]
        for name in peers.installed():
            if name == "torch.compile":
                continue  # takes minutes, and is the same function
            step = peers.step(name, *given)
            assert [step() for _ in range(5)] == pytest.approx(expected, rel=1e-4), name

    a = benchmarks.mlp_arrays(300, 0.2, N=100, C=16)
    for name in peers.installed():
        if name != "torch.compile":
            peers.mlp(name, a)()


def test_crossover_is_where_the_code_says():
    assert min(benchmarks.SHARES_ON) < mlp_route.SPARSE_BELOW <= max(benchmarks.SHARES_ON)
