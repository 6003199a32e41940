"""``minirelu export``."""

from __future__ import annotations

import click

from minirelu.cli.say import say


@click.command()
@click.argument("folder", type=click.Path())
@click.option(
    "--format", "kind", type=click.Choice(["opt"]), required=True, help="HuggingFace OPT."
)
@click.argument("out", type=click.Path())
@click.option("--step", type=int, help="Weights of an earlier step.  [default: the last]")
def export(folder: str, kind: str, out: str, step: int | None) -> None:
    """Write a run's model and tokenizer for another library.

    The folder loads with OPTForCausalLM.from_pretrained and AutoTokenizer.from_pretrained. OPT has
    one d_mlp: narrower layers, as pruning makes them, are padded with silent units.

    \b
    Example:
      minirelu export runs/small --format opt my-opt
    """
    from minirelu.interop.opt import silent_units, write_opt
    from minirelu.runs.run import Run

    run = Run.open(folder)
    write_opt(run.params(step), run.config, out, run.tokenizer)
    say(f"wrote  {out}")
    if added := sum(silent_units(run.config)):
        say(
            f"note   {added:,} silent units were added, all weights 0, so that every layer has the "
            f"{max(run.config.mlp_widths):,} of the widest; the logits are the same"
        )
    say(f"next   in Python, with transformers: OPTForCausalLM.from_pretrained({out!r})")
