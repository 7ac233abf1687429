"""The embedded world: characters of known factors, their pictures and their captions."""

from pti_pipeline.world.captions import WORDS, caption
from pti_pipeline.world.factors import Factors, concatenate, sample_factors, shade
from pti_pipeline.world.render import masks, render, render_with_masks

__all__ = [
    "WORDS",
    "Factors",
    "caption",
    "concatenate",
    "masks",
    "render",
    "render_with_masks",
    "sample_factors",
    "shade",
]
