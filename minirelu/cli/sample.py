"""``minirelu sample``."""

from __future__ import annotations

from typing import Any

import click

from minirelu.cli.say import say


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--prompt", default="", help="The beginning.  [default: the start of a document]")
@click.option("--tokens", default=200, show_default=True, help="How many to write at most.")
@click.option(
    "--temperature", default=0.8, show_default=True, help="Lower is safer; 0: always the likeliest."
)
@click.option("--top-k", default=40, show_default=True, help="Among the k likeliest; 0: among all.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same text.")
@click.option("--step", type=int, help="Weights of an earlier step.  [default: the last]")
def sample(
    folder: str,
    prompt: str,
    tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    step: int | None,
) -> None:
    """Let a trained model continue a text.

    \b
    Examples:
      minirelu sample runs/small --prompt "def main("
      minirelu sample runs/small --prompt "import " --temperature 0 --tokens 50
    """
    from minirelu.errors import UserError
    from minirelu.generation import generate
    from minirelu.runs.run import Run

    for name, value in (("tokens", tokens), ("seed", seed)):
        if value < 0:
            raise UserError(f"--{name}: {value} is not allowed; it must be 0 or more")
    run = Run.open(folder)
    tokenizer = run.tokenizer
    ids = tokenizer.encode_prompt(prompt) or [tokenizer.end or 0]
    settings: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "seed": seed}
    new = generate(run.params(step), ids, run.config, tokens, **settings, stop_at=tokenizer.end)
    say(prompt, nl=False)
    for text in _as_text(new, tokenizer.decode):
        say(text, nl=False)
    say()


def _as_text(ids, decode):
    """Yield text as soon as it is whole: a character's bytes may be spread over several tokens."""
    held: list[int] = []
    for token in ids:
        held.append(token)
        text = decode(held)
        if not text.endswith("\ufffd") or len(held) > 8:
            yield text
            held = []
    if held:
        yield decode(held)
