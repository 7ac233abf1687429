"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, an AutoencoderKL and a UNet."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from torch import Tensor, nn

from pti_pipeline.errors import ModelError
from pti_pipeline.families import foreign
from pti_pipeline.families.attention import watched
from pti_pipeline.families.base import Moved
from pti_pipeline.families.merged import save_merged
from pti_pipeline.families.words import check_token, initializer_id
from pti_pipeline.lora import OURS
from pti_pipeline.low_rank import PREFIX
from pti_pipeline.pivot import Pivot, expand, placeholder_tokens
from pti_pipeline.weights import OUR_KEY, read_weights, refuse_pickle, refuse_pickles, write_weights

diffusers.utils.logging.disable_progress_bar()
diffusers.utils.logging.set_verbosity(logging.CRITICAL)  # errors that it logs are raised too
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

WORD = re.compile(r"[a-z]{3,}</w>")
"""How CLIP's vocabulary writes a whole word."""


def load(source: str, name: str, device: torch.device, dtype: torch.dtype) -> StableDiffusion:
    """Load a folder, a single file or a hub id; see :func:`pti_pipeline.families.load`."""
    file = Path(source)
    if os.path.isfile(source):  # unlike Path, it takes any text
        refuse_pickle(file)
    try:
        if file.suffix == ".safetensors":
            pipeline = StableDiffusionPipeline.from_single_file(source, dtype=dtype)
        else:
            pipeline = StableDiffusionPipeline.from_pretrained(
                source,
                dtype=dtype,
                safety_checker=None,
                requires_safety_checker=False,
                local_files_only=os.path.isdir(source),
                use_safetensors=True,
                trust_remote_code=False,
            )
        return StableDiffusion(pipeline, name, device, dtype)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a part's file makes of the library that reads it
        if source and os.path.isdir(source):
            refuse_pickles(file)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "give a folder, a .safetensors file or a hub id of a Stable Diffusion model"
        raise ModelError("E401", f"can't load the base model '{name}' ({reason})", hint) from error


class StableDiffusion:
    """A frozen Stable Diffusion model; see :class:`pti_pipeline.families.base.BaseModel`."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name, self.device, self.dtype = name, device, dtype
        self.tokenizer, self.scheduler = pipeline.tokenizer, pipeline.scheduler
        self._pipeline = pipeline
        parts = (pipeline.text_encoder, pipeline.vae, pipeline.unet)
        for part in parts:
            part.requires_grad_(False).eval().to(device)
        self.text_encoder, self.vae, self.denoiser = parts
        self.resolution = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        self.timesteps = self.scheduler.config.num_train_timesteps
        prediction = self.scheduler.config.prediction_type
        self.fingerprint = _fingerprint(parts, prediction, self.scheduler.alphas_cumprod)
        self._velocity = prediction == "v_prediction"

    def check_token(self, token: str) -> None:
        """Raise ``UsageError`` if ``token`` can't be a placeholder token."""
        check_token(self.tokenizer, token)

    def initializer_row(self, word: str) -> Tensor:
        """Embedding of a one-token word, shape (H,), float32; else raise ``UsageError``."""
        return self.vocabulary()[initializer_id(self.tokenizer, word)].float().clone()

    def vocabulary(self) -> Tensor:
        """The frozen embedding table, shape (V, H)."""
        table: Tensor = self.text_encoder.get_input_embeddings().weight.detach()
        return table

    def words(self) -> Tensor:
        """Embeddings of the vocabulary's whole words of three letters or more, shape (W, H)."""
        pieces = self.tokenizer.get_vocab().items()
        words = sorted(row for piece, row in pieces if WORD.fullmatch(piece))
        return self.vocabulary()[torch.tensor(words, device=self.device)]

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread of the scaled latents of (N, 3, S, S) pictures in [-1, 1]."""
        scale = self.vae.config.scaling_factor
        posterior = self.vae.encode(pixels.to(self.device, self.dtype)).latent_dist
        return posterior.mean.float() * scale, posterior.std.float() * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) in [-1, 1] of scaled latents."""
        scaled = latents.to(self.device, self.dtype) / self.vae.config.scaling_factor
        pixels: Tensor = self.vae.decode(scaled).sample
        return pixels.float().clamp(-1, 1)

    def tokenize(self, prompts: Sequence[str], placeholders: Sequence[str]) -> Tensor:
        """Token ids (P, L); placeholder j has id V + j, and one stands for those of its name."""
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.add_tokens(list(placeholders))
        batch = tokenizer(
            [expand(prompt, placeholders) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        ids: Tensor = batch.input_ids
        return ids.to(self.device)

    def condition(self, ids: Tensor) -> Tensor:
        """Token states (P, L, H) of ids, through whatever embedding is attached."""
        states: Tensor = self.text_encoder(input_ids=ids).last_hidden_state
        return states

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents at ``timesteps``."""
        noisy: Tensor = self.scheduler.add_noise(latents, noise, timesteps)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should predict: noise or velocity."""
        if not self._velocity:
            return noise
        signal, spread = self._levels(timesteps)
        return signal * noise - spread * latents

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """The denoiser's prediction, float32 or wider."""
        output = self.denoiser(noisy.to(self.dtype), timesteps, condition, return_dict=False)[0]
        prediction: Tensor = output.to(torch.promote_types(output.dtype, torch.float32))
        return prediction

    def attention(self, reduce: Callable[[Tensor], Tensor]) -> AbstractContextManager[list[Tensor]]:
        """Watch cross-attention; see :func:`pti_pipeline.families.attention.watched`."""
        return watched(self.denoiser, reduce)

    def clean(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
        """Clean latents that a prediction stands for."""
        signal, spread = self._levels(timesteps)
        if self._velocity:
            return signal * noisy - spread * prediction
        return (noisy - spread * prediction) / signal

    def start_latents(self, seeds: Sequence[int]) -> Tensor:
        """Noise that sampling starts from, one row a seed, equal to diffusers' for that seed."""
        side = self.denoiser.config.sample_size
        shape = (1, self.denoiser.config.in_channels, side, side)
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.cat(rows).to(self.device)

    def sampler(self, steps: int) -> Any:
        """A fresh scheduler of the base's own kind, set to ``steps``."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def save_lora(
        self, state: Mapping[str, Tensor], metadata: Mapping[str, Any], folder: Path
    ) -> None:
        """Write a LoRA (peft's names) as the file that ``load_lora_weights`` reads."""
        plain = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
        StableDiffusionPipeline.save_lora_weights(
            folder,
            unet_lora_layers=convert_state_dict_to_diffusers(plain),
            unet_lora_adapter_metadata={k: v for k, v in metadata.items() if k not in OURS},
        )
        tensors, header = read_weights(folder / LORA_WEIGHT_NAME_SAFE)
        if ours := {k: v for k, v in metadata.items() if k in OURS}:
            header |= {OUR_KEY: json.dumps(ours)}
        write_weights(folder / LORA_WEIGHT_NAME_SAFE, tensors, header)

    def load_lora(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a LoRA file: peft's names, and its rank, alpha and target modules."""
        refuse_pickle(path)
        try:
            tensors, written = read_weights(path)
            facts = json.loads(written["lora_adapter_metadata"])
            own = {k.removeprefix("unet."): v for k, v in facts.items()}
            own |= json.loads(written.get(OUR_KEY, "{}"))
            state = convert_unet_state_dict_to_peft(tensors)
        except Exception as error:
            what = f"'{path.name}' is no LoRA with its settings ({error})"
            raise ModelError("E405", what, "give one that pti trained") from error
        return {PREFIX + name.removeprefix("unet."): value for name, value in state.items()}, own

    def lora_file(self, path: Path) -> AbstractContextManager[Moved]:
        """Attach a LoRA file made elsewhere; see :func:`pti_pipeline.families.foreign.attached`."""
        return foreign.attached(self._pipeline, path)

    def save_merged(self, pivot: Pivot, path: Path | None, folder: Path) -> None:
        """Write a whole pipeline's folder with a pivot, and a LoRA file of ours, merged into it."""
        tokens = placeholder_tokens(pivot.token, len(pivot.embedding))
        adapter = self.load_lora(path) if path else None
        save_merged(self._pipeline, tokens, pivot.embedding, adapter, folder)

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        cumulative = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        signal, spread = cumulative.sqrt(), (1 - cumulative).sqrt()
        return signal[:, None, None, None], spread[:, None, None, None]


def _fingerprint(parts: Sequence[nn.Module], prediction: str, noise: Tensor) -> str:
    """Digest of all weights, of what the denoiser predicts, and at which levels of noise."""
    digest = sha256(prediction.encode() + noise.cpu().float().numpy().tobytes())
    for part in parts:
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
