"""``pti memory``: what a training will need, told before it is begun."""

from __future__ import annotations

from typing import Any

import click

from pti_pipeline.cli.adapting import adaptation_settings, adapting
from pti_pipeline.cli.optimizing import OPTIMIZER
from pti_pipeline.cli.options import option, whole
from pti_pipeline.cli.sparing import BASE_BITS, OFFLOAD, PRECISION
from pti_pipeline.settings import FinetuneSettings, InvertSettings

GIB = 2**30


@click.command()
@option("base", "world", "Base model: world (embedded), a folder or a hub id.")
@PRECISION
@BASE_BITS
@option("batch-size", 4, "Rows of each optimizer update.", type=whole("batch_size", 1))
@option("micro-batch", 0, "Rows of each batch in a pass; 0: all.", type=whole("micro_batch", 0))
@option("vectors", 1, "Learned vectors of the token.", type=whole("vectors", 1))
@option("rank", 4, "Rank of the LoRA.", type=whole("rank", 1))
@adapting
@OPTIMIZER
@option("pack", 1, "Experiments in one pass.", type=click.IntRange(1, 4096))
@option("checkpointing", "no", "As in pti finetune: yes or no.", type=bool)
@OFFLOAD
@option("budget", 0.0, "GiB of the device; 0: what is free here.", type=click.FloatRange(0))
def memory(**o: Any) -> None:
    """Estimate the memory that invert and finetune need, and how many experiments fit.

    Only configurations are read, no weights. What is counted are tensors; a GPU's kernels take some
    more inside, and its allocator.
    """
    names = ("batch_size", "micro_batch", "checkpointing", "optimizer")
    shared = {name: o[name] for name in names}
    invert = InvertSettings(**shared, vectors=o["vectors"])
    finetune = FinetuneSettings(**shared, rank=o["rank"], **adaptation_settings(o))
    from pti_pipeline import budget
    from pti_pipeline.families import choose_device
    from pti_pipeline.families.drafts import draft
    from pti_pipeline.machine import free_bytes
    from pti_pipeline.needs import asides_of, step_of, weights_of
    from pti_pipeline.targets import check_rank, chosen

    drawn = draft(o["base"], o["precision"], o["base_bits"])
    denoiser, reads = drawn.base.denoiser, finetune.text_encoder == "yes"
    check_rank(denoiser, finetune.rank, chosen(denoiser, finetune, drawn.base.feed_forward))
    weights, asides = weights_of(drawn), asides_of(drawn)
    stages = {
        "invert": budget.Needs(weights, asides, step_of(drawn.base, invert), True, o["offload"]),
        "finetune": budget.Needs(
            weights, asides, step_of(drawn.base, finetune), reads, o["offload"]
        ),
    }
    there = int(o["budget"] * GIB) or free_bytes(choose_device("auto"))
    click.echo(budget.table(stages, o["pack"], there))
