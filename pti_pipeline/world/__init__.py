"""The embedded world: characters of known factors, their pictures and their captions."""

from pti_pipeline.world.captions import WORDS, caption
from pti_pipeline.world.factors import Factors, concatenate, sample_factors
from pti_pipeline.world.render import masks, render

__all__ = ["WORDS", "Factors", "caption", "concatenate", "masks", "render", "sample_factors"]
