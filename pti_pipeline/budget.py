"""What a training takes at its fullest, how many experiments fit a card, and both as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pti_pipeline.memory import USED
from pti_pipeline.needs import Asides, Step, Weights

CONTEXT = 768 * 2**20
"""Bytes of a GPU that its driver and libraries hold for a process, as measured on an H100."""
GIB = 2**30
STEP = "a step"
"""The moment that grows with each experiment."""


@dataclass(frozen=True)
class Needs:
    """Memory of one stage, of one experiment.

    Attributes
    ----------
    weights : Weights
    asides : Asides
    step : Step
    reads : bool
        Whether a step runs the text encoders: in an inversion, or of a LoRA that adapts them.
    offload : bool
        Whether only the parts in use are on the device.
    """

    weights: Weights
    asides: Asides
    step: Step
    reads: bool
    offload: bool


def moments(needs: Needs, experiments: int = 1) -> dict[str, int]:
    """Bytes at the fullest of each thing that is done, of K experiments in one pass."""
    weights, asides, kept = needs.weights, needs.asides, needs.step.kept * experiments
    pass_ = (needs.step.held + needs.step.more) * experiments
    denoiser, encoders = weights.denoiser, weights.encoders
    everything = denoiser + encoders + weights.t5 + weights.vae

    def resident(*parts: int) -> int:
        return sum(parts) if needs.offload else everything

    reader = max(encoders, weights.t5)
    trained = (denoiser, encoders) if needs.reads else (denoiser,)
    return {
        "encoding pictures": resident(weights.vae) + asides.encoding,
        "reading prompts": resident(reader) + asides.reading,
        STEP: resident(*trained) + kept + pass_,
        "drawing": resident(denoiser) + kept + asides.predicting * experiments,
        "decoding": resident(weights.vae) + kept + asides.decoding,
    }


def peak(needs: Needs, experiments: int = 1) -> int:
    """Bytes at the fullest of all, with what a GPU's driver holds."""
    return CONTEXT + max(moments(needs, experiments).values())


def largest_pack(needs: Needs, budget: int) -> int:
    """Experiments that share one pass within ``budget`` bytes, by the rule that packs follow.

    A pass fills :data:`pti_pipeline.memory.USED` of what is left beside the weights.
    """
    if peak(needs) > budget:
        return 0
    step = needs.step
    left = budget - CONTEXT - (moments(needs)[STEP] - step.kept - step.held - step.more)
    count = max(1, int(left / (step.kept + (step.held + step.more) / USED)))
    while count > 1 and peak(needs, count) > budget:
        count -= 1
    return count


def table(stages: Mapping[str, Needs], experiments: int, budget: int) -> str:
    """Lines of a table: parts, then moments, then what fits; a column for each stage."""
    every = [*stages.values()]
    rows: list[tuple[str, list[str]]] = [("GiB", [*stages])]

    def add(name: str, values: list[int]) -> None:
        rows.append((name, [f"{value / GIB:.2f}" for value in values]))

    for part, name in zip(("denoiser", "encoders", "t5", "vae"), PARTS, strict=True):
        if any(getattr(each.weights, part) for each in every):
            add(name, [getattr(each.weights, part) for each in every])
    for part, name in STEPS.items():
        add(name, [getattr(each.step, part) * experiments for each in every])
    add("the driver's own", [CONTEXT] * len(every))
    told = [moments(each, experiments) for each in every]
    for name in told[0]:
        add(f"at once: {name}", [CONTEXT + each[name] for each in told])
    add("at the most", [peak(each, experiments) for each in every])
    packs = [str(largest_pack(each, budget)) for each in every]
    rows.append((f"experiments in {budget / GIB:.1f} GiB", packs))
    first = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{first}}" + "".join(f"{v:>10}" for v in vs) for name, vs in rows)


PARTS = ("denoiser", "text encoders", "T5", "VAE")
STEPS = {
    "kept": "trained, its optimizer, prompts",
    "held": "held for the backward pass",
    "more": "more in the backward pass",
}
