"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, and a UNet."""

from __future__ import annotations

from diffusers import StableDiffusionPipeline
from torch import Tensor

from pti_pipeline.families.pipeline import PipelineModel
from pti_pipeline.losses import wide

PIPELINE = StableDiffusionPipeline
OPTIONS = {"safety_checker": None, "requires_safety_checker": False}
"""Of its loading: nothing looks at what is trained."""


class StableDiffusion(PipelineModel):
    """A frozen Stable Diffusion model; see :class:`pti_pipeline.families.base.BaseModel`."""

    def condition(self, ids: Tensor) -> Tensor:
        """Token states (P, L, H) of ids, through whatever embedding is attached."""
        states: Tensor = self.text_encoders[0](input_ids=ids).last_hidden_state
        return states

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """The denoiser's prediction, float32 or wider."""
        output = self.denoiser(noisy.to(self.dtype), timesteps, condition, return_dict=False)[0]
        return wide(output)


MODEL = StableDiffusion
