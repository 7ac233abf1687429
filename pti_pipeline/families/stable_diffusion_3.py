"""Stable Diffusion 3 and 3.5: a transformer that predicts a flow's velocity (Esser et al. 2024).

Both CLIP encoders learn the placeholder. T5, where the pipeline has it, is left as it is: to it the
placeholder is a piece of text like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from torch import Tensor

from pti_pipeline.families import encoders, placing
from pti_pipeline.families.attention import watched
from pti_pipeline.families.joint_attention import look
from pti_pipeline.families.pipeline import PipelineModel
from pti_pipeline.families.schedules import Flow, Schedule
from pti_pipeline.losses import wide

PIPELINE = StableDiffusion3Pipeline
OPTIONS: dict[str, Any] = {}
LENGTH = 256
"""Tokens that T5 reads: diffusers' default."""


class StableDiffusion3(PipelineModel):
    """A frozen Stable Diffusion 3 model; see :class:`pti_pipeline.families.base.BaseModel`."""

    denoiser_part = "transformer"
    encoder_parts = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
    reader_part = "text_encoder_3"
    feed_forward = (
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "to_add_out"),
    )

    @staticmethod
    def schedule_of(scheduler: Any) -> Schedule:
        """Noise by the flow's time."""
        return Flow(scheduler.config.num_train_timesteps, scheduler.config.shift)

    def _prepare(self, pipeline: Any) -> None:
        """Have both CLIP encoders read the same words, and pool where a prompt ends."""
        self._second = pipeline.tokenizer_2
        encoders.check_same_words(self.tokenizer, self._second)
        clips = pipeline.text_encoder, pipeline.text_encoder_2
        for part in clips:
            encoders.pool_at_the_end(part, self.tokenizer)
        self._pooled = sum(part.config.projection_dim for part in clips)
        self._read: dict[bytes, Tensor] = {}

    def _shapes(self, scale: int) -> tuple[int, int]:
        """Whole patches, as far as the transformer knows places of them."""
        config = self._config(placing.DENOISER)
        patch = scale * config.patch_size
        return patch, min(2 * self.resolution, patch * config.pos_embed_max_size)

    def tokenize(self, prompts: Sequence[str], placeholders: Sequence[str]) -> Tensor:
        """Token ids (P, L) of CLIP, and then those of T5, counted from -1 downwards."""
        ids = super().tokenize(prompts, placeholders)
        if not self._parts[placing.T5]:
            return F.pad(ids, (0, LENGTH), value=-1)
        batch = self.pipeline.tokenizer_3(
            list(prompts),
            padding="max_length",
            max_length=LENGTH,
            truncation=True,
            return_tensors="pt",
        )
        return torch.cat([ids, -1 - batch.input_ids.to(ids)], 1)

    def condition(self, ids: Tensor) -> Tensor:
        """States of both CLIP encoders side by side, then T5's; and CLIP's pooled ones, packed."""
        clip = ids[:, : self.tokenizer.model_max_length]
        t5 = self._t5_states(ids[:, clip.shape[1] :])
        smaller, larger = self.text_encoders
        first, one = encoders.read(smaller, clip)
        second, other = encoders.read(larger, encoders.padded_as(clip, self._second))
        states = torch.cat([first, second], -1)
        states = F.pad(states, (0, t5.shape[-1] - states.shape[-1]))
        return encoders.pack(torch.cat([states, t5], 1), torch.cat([one, other], -1))

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """The transformer's prediction, float32 or wider."""
        states, pooled = encoders.unpack(condition.to(self.dtype), self._pooled)
        output = self.denoiser(
            hidden_states=noisy.to(self.dtype),
            timestep=timesteps,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return wide(output)

    def attention(self, reduce: Callable[[Tensor], Tensor]) -> AbstractContextManager[list[Tensor]]:
        """Watch what pictures attend to in prompts."""
        return watched(self.denoiser, reduce, look)

    def sampler(self, steps: int) -> Sampler:
        """A fresh scheduler of the base's own kind, set to ``steps``."""
        scheduler, config = Sampler.from_config(self.scheduler.config), self.scheduler.config
        more = {}
        if config.use_dynamic_shifting:
            shape = self._config(placing.DENOISER)
            patches = (shape.sample_size // shape.patch_size) ** 2
            names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            more["mu"] = calculate_shift(patches, *(config[name] for name in names))
        scheduler.set_timesteps(steps, device=self.device, **more)
        return scheduler

    @torch.no_grad()
    def _t5_states(self, ids: Tensor) -> Tensor:
        """T5's states (P, :data:`LENGTH`, H), each prompt read once; zeros without a T5."""
        if not self._parts[placing.T5]:
            width = self._config(placing.DENOISER).joint_attention_dim
            return torch.zeros(len(ids), LENGTH, width, dtype=self.dtype, device=self.device)
        keys = [row.cpu().numpy().tobytes() for row in ids]
        unread = {key: row for key, row in zip(keys, ids, strict=True) if key not in self._read}
        if unread:
            (t5,) = self._here(placing.T5)
            self._read |= {key: t5(-1 - row[None])[0][0] for key, row in unread.items()}
        return torch.stack([self._read[key] for key in keys])


class Sampler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """diffusers' scheduler with what those of diffusion models have besides."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, _: Tensor) -> Tensor:
        """Give a sample as it is."""
        return sample


MODEL = StableDiffusion3
