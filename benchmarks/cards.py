"""Most memory that trainings of public models take of a GPU, which nothing else should use.

``make bench ONLY=cards`` fills these rows where a GPU is at hand; with
``PYTORCH_ALLOC_CONF=expandable_segments:False`` those of plain segments. The very steps that
:mod:`pti_pipeline.needs` runs on the meta device run there, on random weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import torch

from benchmarks.gpu import SHAPES
from benchmarks.timing import Row
from pti_pipeline.budget import CONTEXT, GIB
from pti_pipeline.environment import ALLOCATORS, SEGMENTS
from pti_pipeline.families.drafts import Draft, draft
from pti_pipeline.live import most_bytes
from pti_pipeline.needs import Settings, asides_of, step_of, weights_of
from pti_pipeline.settings import FinetuneSettings, InvertSettings

STAGES: dict[str, type[Settings]] = {"invert": InvertSettings, "finetune": FinetuneSettings}


@dataclass(frozen=True)
class Card:
    """A model, how it is trained in bfloat16, and what that must fit in.

    Attributes
    ----------
    model : str
        One of :data:`benchmarks.gpu.SHAPES`.
    memory : int
        Of the card, in GiB.
    micro_batch : int
    checkpointing, offload : bool
    bits : int
        Of the base.
    """

    model: str
    memory: int
    micro_batch: int = 1
    checkpointing: bool = False
    offload: bool = False
    bits: int = 16

    @property
    def options(self) -> str:
        """As the command line has them."""
        said = "--precision=bf16"
        said += f" --micro-batch={self.micro_batch}" if self.micro_batch else ""
        said += " --checkpointing=yes" if self.checkpointing else ""
        said += " --offload=yes" if self.offload else ""
        return said + (f" --base-bits={self.bits}" if self.bits < 16 else "")


CARDS = (
    Card("stable-diffusion-1.5", 6, micro_batch=0),
    Card("stable-diffusion-1.5", 6),
    Card("stable-diffusion-xl", 12, offload=True),
    Card("stable-diffusion-xl", 12, checkpointing=True),
    Card("stable-diffusion-xl", 12, checkpointing=True, offload=True),
    Card("stable-diffusion-3-medium", 16, checkpointing=True, bits=4),
)
"""Rows of docs/reference/memory.md that hold what their card is for. A draft's T5 does not come and
go, so that 3 medium with offloading is left out."""


def rows() -> Iterator[Row]:
    """Measure every card's stages on the GPU here."""
    for card in CARDS:
        for stage, kind in STAGES.items():
            settings = kind(micro_batch=card.micro_batch, checkpointing=card.checkpointing)
            yield row(card, stage, settings, SHAPES / card.model, torch.device("cuda", 0))


def row(card: Card, stage: str, settings: Settings, folder: Path, device: torch.device) -> Row:
    """Measure one stage on a device, with weights drawn anew; it has to fit the card."""
    real = draft(str(folder), "bf16", card.bits, device, card.offload)
    most, how = taken(real, settings, card.memory * GIB)
    plain = not any(SEGMENTS in os.environ.get(name, "") for name in ALLOCATORS)
    note = f"{most / GIB:.2f} GiB{how}"
    return Row(
        name_of(card, stage, plain),
        most / (card.memory * GIB),
        1.0,
        None,
        0.0,
        1,
        share=True,
        note=note,
    )


def name_of(card: Card, stage: str, plain: bool) -> str:
    """Name of a row; ``plain`` without the allocator's expandable segments."""
    said = ", plain segments" if plain else ""
    return f"GPU memory, {card.model} {stage} {card.options}{said}: measured / {card.memory} GiB"


def taken(real: Draft, settings: Settings, memory: int) -> tuple[int, str]:
    """Most bytes that a training has of a GPU, with what the driver holds; on a CPU of tensors.

    On a GPU it is done twice: once as it likes, which loads the kernels, and once with no more than
    ``memory``, the driver's part in it. What it has then is told, and how much of that the driver
    and tensors have. If it runs out of memory, it is what it had when it was free, and more than
    ``memory``.
    """
    device = real.base.device

    def work() -> None:
        asides_of(real)
        step_of(real.base, settings)

    if device.type == "cpu":
        return CONTEXT + sum(astuple(weights_of(real))) + most_bytes(work, device), ""
    free = on_gpu(work, device)
    available, total = torch.cuda.mem_get_info(device)
    driver = total - available - torch.cuda.memory_reserved(device)
    told = f", the driver's {driver / GIB:.2f}, without a limit {(driver + free[0]) / GIB:.2f}"
    torch.cuda.set_per_process_memory_fraction((memory - driver) / total, device)
    try:
        reserved, tensors = on_gpu(work, device)
    except torch.OutOfMemoryError:
        reserved, tensors = max(free[0], memory - driver + 1), free[1]
        told += ", out of memory with one"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    return driver + reserved, f"{told}, tensors' {tensors / GIB:.2f}"


def on_gpu(work: Callable[[], None], device: torch.device) -> tuple[int, int]:
    """Most bytes that the allocator has had, and that tensors had, while something ran."""
    torch.cuda.empty_cache()  # of what was before
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_reserved(device), torch.cuda.max_memory_allocated(device)
