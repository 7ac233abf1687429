"""Which layers of a model a LoRA adapts: peft decides, by the endings of their names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pti_pipeline.adaptation import FEED_FORWARD, Adaptation
from pti_pipeline.errors import UsageError
from pti_pipeline.settings import TARGETS

ENCODER_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""Layers of a text encoder: the attention's projections, as diffusers' trainers adapt them."""


def chosen(
    denoiser: nn.Module, adaptation: Adaptation, feed_forward: Sequence[str]
) -> tuple[str, ...]:
    """Endings of the names of the layers that an adaptation means.

    Parameters
    ----------
    denoiser : nn.Module
    adaptation : Adaptation
    feed_forward : sequence of str
        Endings that its family's denoisers may have beside attention; those that are convolutions
        in this one are left out.
    """
    if adaptation.targets == FEED_FORWARD:
        there = {end: _matching(denoiser, [end]).values() for end in feed_forward}
        linear = [end for end, found in there.items() if found and not any(map(_odd, found))]
        return (*TARGETS, *linear)
    return adaptation.endings or TARGETS


def adapted(denoiser: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """Linear layers that peft would adapt, by name, in the denoiser's own order.

    Raises
    ------
    UsageError
        If an ending is of no layer, or of one that is not linear.
    """
    for ending in targets:
        found = _matching(denoiser, [ending]).values()
        what = "" if found else f"no layer of the denoiser ends in '{ending}'"
        for odd in filter(_odd, found):
            what = f"'{ending}' is a {type(odd).__name__} in this denoiser, no linear layer"
        if what:
            raise UsageError("E207", what, f"use some of {', '.join(_endings(denoiser))}")
    layers = _matching(denoiser, targets)
    return {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}


def check_rank(denoiser: nn.Module, rank: int, targets: Sequence[str]) -> None:
    """Raise ``UsageError`` if no layer has as many ranks: a LoRA would hold more than the layer."""
    sides = [min(la.in_features, la.out_features) for la in adapted(denoiser, targets).values()]
    if rank > max(sides):
        hint = f"use at most {max(sides)}, the side of this base model's largest layers"
        raise UsageError("E202", f"rank is {rank}", hint)


def _odd(module: nn.Module) -> bool:
    return not isinstance(module, nn.Linear)


def _matching(model: nn.Module, endings: Sequence[str]) -> dict[str, nn.Module]:
    from peft import LoraConfig  # seconds, which only those pay who have a model
    from peft.tuners.tuners_utils import check_target_module_exists

    config = LoraConfig(target_modules=list(endings))
    return {n: m for n, m in model.named_modules() if check_target_module_exists(config, n)}


def _endings(model: nn.Module) -> list[str]:
    """What the names of a model's linear layers end in, and of no others; each once."""
    linear = (name for name, module in model.named_modules() if not _odd(module))
    known = sorted({*map(_ending, linear)})
    return [end for end in known if not any(map(_odd, _matching(model, [end]).values()))]


def _ending(name: str) -> str:
    """Last part of a name, with those before it while they are mere numbers.

    Examples
    --------
    >>> _ending("attn1.to_out.0"), _ending("ff.net.2"), _ending("time_embedding.linear_1")
    ('to_out.0', 'net.2', 'linear_1')
    """
    head, _, last = name.rpartition(".")
    return f"{_ending(head)}.{last}" if last.isdigit() and head else last
