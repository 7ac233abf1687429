"""Models of every family so small that a training takes seconds, from their public configs."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from faults.tiny import USUAL, WORDS, build_base
from pti_pipeline.steps.world_training.tokenizer import build_tokenizer


def build_families(folder: Path) -> dict[str, Path]:
    """Make a model of every family, with random weights; return their folders by short names."""
    made = {}
    for name, build in BUILDERS.items():
        (folder / name).mkdir()
        torch.manual_seed(0)
        made[name] = build(folder / name)
    return made


def _sd(folder: Path) -> Path:
    return build_base(folder, "epsilon")


def _sd_velocity(folder: Path) -> Path:
    """With projections as Stable Diffusion 2's: linear."""
    return build_base(folder, "v_prediction", {**USUAL, "use_linear_projection": True})


def _sdxl(folder: Path) -> Path:
    tokenizer, second = _tokenizers(folder)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        norm_num_groups=4,
        cross_attention_dim=16 + 24,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(4, 0.13025),
        text_encoder=CLIPTextModel(_text(tokenizer, 16, 16)),
        text_encoder_2=CLIPTextModelWithProjection(_text(second, 24, 20)),
        tokenizer=tokenizer,
        tokenizer_2=second,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


def _sd3(folder: Path) -> Path:
    tokenizer, second = _tokenizers(folder)
    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz<>"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    third = T5Tokenizer(vocab=pieces + [(f"▁{w}", -1.0) for w in WORDS] + letters, extra_ids=0)
    t5 = T5EncoderModel(
        T5Config(vocab_size=len(third), d_model=48, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )
    return _save_sd3(folder, tokenizer, second, t5, third)


def _sd3_without_t5(folder: Path) -> Path:
    return _save_sd3(folder, *_tokenizers(folder), None, None)


def _save_sd3(
    folder: Path,
    tokenizer: CLIPTokenizer,
    second: CLIPTokenizer,
    t5: T5EncoderModel | None,
    third: T5Tokenizer | None,
) -> Path:
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_projection_dim=16,
            joint_attention_dim=48,
            pooled_projection_dim=16 + 20,
            out_channels=16,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(16, 1.5305, 0.0609),
        text_encoder=CLIPTextModelWithProjection(_text(tokenizer, 16, 16)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_text(second, 24, 20)),
        tokenizer_2=second,
        text_encoder_3=t5,
        tokenizer_3=third,
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


def _tokenizers(folder: Path) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """CLIP's two, of which the second pads with "!"."""
    tokenizer = build_tokenizer(WORDS, folder / "words")
    return tokenizer, CLIPTokenizer.from_pretrained(folder / "words", pad_token="!")


def _text(tokenizer: CLIPTokenizer, width: int, projected: int) -> CLIPTextConfig:
    """Configuration with the outdated end token that those of OpenCLIP have."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=32,
        projection_dim=projected,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=2,
        pad_token_id=tokenizer.pad_token_id,
    )


def _vae(channels: int, scale: float, shift: float | None = None) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=scale,
        shift_factor=shift,
    )


BUILDERS = {
    "sd-noise": _sd,
    "sd-velocity": _sd_velocity,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "sd3-without-t5": _sd3_without_t5,
}
