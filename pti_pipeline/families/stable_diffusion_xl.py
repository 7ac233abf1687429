"""Stable Diffusion XL: two CLIP text encoders, and a UNet that is also told sizes.

Podell et al. (2023). The placeholder's vectors are those of both encoders, side by side.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from pti_pipeline.families import encoders
from pti_pipeline.families.pipeline import PipelineModel
from pti_pipeline.losses import wide

PIPELINE = StableDiffusionXLPipeline
OPTIONS: dict[str, Any] = {"add_watermarker": False}
"""Of its loading: what is measured are the model's own pictures."""


class StableDiffusionXL(PipelineModel):
    """A frozen Stable Diffusion XL model; see :class:`pti_pipeline.families.base.BaseModel`."""

    encoder_parts = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))

    def _prepare(self, pipeline: Any) -> None:
        """Have the second encoder read the first one's words, and pool where a prompt ends."""
        self._second = pipeline.tokenizer_2
        encoders.check_same_words(self.tokenizer, self._second)
        encoders.pool_at_the_end(pipeline.text_encoder_2, self._second)
        self._pooled = pipeline.text_encoder_2.config.projection_dim

    def condition(self, ids: Tensor) -> Tensor:
        """States of both encoders side by side, and the second one's pooled state, packed."""
        first, second = self.text_encoders
        states, _ = encoders.read(first, ids)
        others, pooled = encoders.read(second, encoders.padded_as(ids, self._second))
        return encoders.pack(torch.cat([states, others], -1), pooled)

    def unconditional(self) -> Tensor:
        """Zeros, if the pipeline is of those that were trained so; else the empty prompt's."""
        empty = super().unconditional()
        zeros = self.pipeline.config.force_zeros_for_empty_prompt
        return torch.zeros_like(empty) if zeros else empty

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """The denoiser's prediction, float32 or wider, for pictures of this very size, not cut."""
        states, pooled = encoders.unpack(condition.to(self.dtype), self._pooled)
        shape = [side * self.pipeline.vae_scale_factor for side in noisy.shape[-2:]]
        sizes = torch.tensor([*shape, 0, 0, *shape], device=noisy.device)
        output = self.denoiser(
            noisy.to(self.dtype),
            timesteps,
            states,
            added_cond_kwargs={
                "text_embeds": pooled,
                "time_ids": sizes.to(self.dtype).expand(len(noisy), -1),
            },
            return_dict=False,
        )[0]
        return wide(output)


MODEL = StableDiffusionXL
