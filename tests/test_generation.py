"""Generation: the cache against the plain forward, and the ways to draw."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_params, random_tokens

import minirelu as mr
from minirelu.generation import Cache, forward_cached


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("parts", [[9], [1] * 9, [4, 1, 3, 1]])
def test_cache_equals_the_plain_forward(odd, parts, bias):
    config = mr.ModelConfig(**{**vars(odd), "bias": bias})
    params, tokens = random_params(config), random_tokens(config, 2, 9)
    plain, _ = mr.forward(params, tokens, config)
    cache, start, logits = Cache(config, 2, np.float64), 0, []
    for n in parts:
        logits.append(forward_cached(params, tokens[:, start : start + n], config, cache))
        start += n
    np.testing.assert_allclose(np.concatenate(logits, axis=1), plain, rtol=1e-10, atol=1e-12)


def test_cache_refuses_more_than_n_ctx(odd):
    cache = Cache(odd, 1, np.float64)
    forward_cached(random_params(odd), random_tokens(odd, 1, 9), odd, cache)
    with pytest.raises(ValueError, match="n_ctx 9"):
        forward_cached(random_params(odd), random_tokens(odd, 1, 1), odd, cache)


def test_greedy_takes_the_likeliest_token_each_time(odd):
    params, text = random_params(odd), [3, 1, 4]
    for token in mr.generate(params, text, odd, n_tokens=6, temperature=0):
        logits, _ = mr.forward(params, np.array([text]), odd)
        assert token == logits[0, -1].argmax()
        text.append(token)
    assert len(text) == 9


def test_beyond_the_context_generation_continues_from_the_last_half(odd):
    params = random_params(odd)
    text = list(range(9))  # fills n_ctx 9
    first, second = mr.generate(params, text, odd, n_tokens=2, temperature=0)
    assert first == mr.forward(params, np.array([text]), odd)[0][0, -1].argmax()
    window = [*text, first][-4:]
    assert second == mr.forward(params, np.array([window]), odd)[0][0, -1].argmax()


def test_seed_temperature_and_top_k(odd):
    params = random_params(odd)

    def draw(**settings) -> list[int]:
        return list(mr.generate(params, [5], odd, n_tokens=8, **settings))

    greedy = draw(temperature=0)
    assert draw(seed=1) == draw(seed=1) != draw(seed=2)
    assert draw(top_k=1, seed=3) == greedy
    assert draw(temperature=1e-9) == greedy
    logits = mr.forward(params, np.array([[5]]), odd)[0][0, -1]
    best = set(np.argsort(logits)[-3:].tolist())
    first = {draw(top_k=3, temperature=50.0, seed=s)[0] for s in range(60)}
    assert first == best


def test_generation_stops_at_the_end_token(odd):
    params = random_params(odd)
    greedy = list(mr.generate(params, [5], odd, n_tokens=8, temperature=0))
    end = greedy[3]
    stopped = list(mr.generate(params, [5], odd, 8, temperature=0, stop_at=end))
    assert stopped == greedy[: greedy.index(end)]


@pytest.mark.parametrize(
    "settings, word",
    [({"temperature": -1}, "temperature"), ({"top_k": -1}, "top_k"), ({"prompt": []}, "prompt")],
)
def test_wrong_settings_are_named(odd, settings, word):
    arguments = {"prompt": [1], "n_tokens": 1, **settings}
    with pytest.raises(ValueError, match=word):
        list(mr.generate(random_params(odd), config=odd, **arguments))
