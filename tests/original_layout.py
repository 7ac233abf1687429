"""Pipelines as single files in the layout that their makers published: diffusers' names undone.

Names are those of CompVis' latent-diffusion, of OpenCLIP and of Stability's sd3-ref, so that what
reads such files is held against something else than itself.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
ENDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
JOINT = {
    "norm1.linear": "x_block.adaLN_modulation.1", "attn.to_out.0": "x_block.attn.proj",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_add_out": "context_block.attn.proj",
    "attn.norm_q": "x_block.attn.ln_q", "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q", "attn.norm_added_k": "context_block.attn.ln_k",
    "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1", "ff_context.net.2": "context_block.mlp.fc2",
}  # fmt: skip
TRANSFORMER = {
    "pos_embed.pos_embed": "pos_embed", "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder", "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}  # fmt: skip


def save_single(pipe, path: Path) -> Path:
    """Write all weights of a pipeline into one file."""
    weights = {f"first_stage_model.{name}": value for name, value in _vae(pipe.vae)}
    if hasattr(pipe, "transformer"):
        weights |= {f"model.diffusion_model.{n}": v for n, v in _transformer(pipe.transformer)}
        for part, name in (("", "clip_l"), ("_2", "clip_g"), ("_3", "t5xxl")):
            encoder = getattr(pipe, f"text_encoder{part}")
            for key, value in encoder.state_dict().items() if encoder else ():
                weights[f"text_encoders.{name}.transformer.{key}"] = value
    else:
        weights |= {f"model.diffusion_model.{n}": v for n, v in _unet(pipe.unet)}
        second = getattr(pipe, "text_encoder_2", None)
        place = "conditioner.embedders.0" if second else "cond_stage_model"
        for key, value in pipe.text_encoder.state_dict().items():
            whole = f"text_model.{key.removeprefix('text_model.')}"
            weights[f"{place}.transformer.{whole}"] = value
        if second:
            weights |= {f"conditioner.embedders.1.model.{n}": v for n, v in _open_clip(second)}
    whole = torch.contiguous_format
    save_file({n: value.clone(memory_format=whole) for n, value in weights.items()}, path)
    return path


def cache(hub: Path, name: str, folder: Path, pattern="*") -> None:
    """Lay a folder's files into a copy of the hub on this machine, as huggingface_hub does."""
    home, commit = hub / f"models--{name.replace('/', '--')}", "0" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    for path in folder.rglob(pattern):
        if path.is_file():
            there = home / "snapshots" / commit / path.relative_to(folder)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, there)


def _named(name: str, names) -> str:
    """Change what a name is, or begins with, before its last word."""
    for ours, theirs in names.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    raise KeyError(name)


def _unet(unet):
    layers = unet.config.layers_per_block
    attends = ["CrossAttn" in kind for kind in unet.config.up_block_types]
    for name, value in unet.state_dict().items():
        found = re.fullmatch(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?([a-z]+)\.(\d+)\.(.+)", name)
        if found is None:
            yield _named(name, UNET), value
            continue
        way, block, what, index, rest = found.groups()
        block, index = int(block or 0), int(index)
        if way == "mid":
            place = f"middle_block.{2 * index if what == 'resnets' else 1}"
        elif what == "downsamplers":
            place, rest = f"input_blocks.{(layers + 1) * (block + 1)}.0.op", rest[5:]
        elif what == "upsamplers":
            last = (layers + 1) * block + layers
            place, rest = f"output_blocks.{last}.{2 if attends[block] else 1}", rest
        else:
            sides = ("input_blocks", 1) if way == "down" else ("output_blocks", 0)
            number = (layers + 1) * block + index + sides[1]
            place = f"{sides[0]}.{number}.{0 if what == 'resnets' else 1}"
        yield f"{place}.{_named(rest, RESNET) if what == 'resnets' else rest}", value


def _vae(vae):
    last = len(vae.config.block_out_channels) - 1
    for name, value in vae.state_dict().items():
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = re.sub(r"samplers\.0", "sample", name)
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)", r"down.\1", name)
        name = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{last - int(found[1])}", name)
        name = name.replace(".resnets.", ".block.")
        name = re.sub(r"mid_block\.block\.(\d)", lambda n: f"mid.block_{int(n[1]) + 1}", name)
        side, inside, rest = name.partition(".mid_block.attentions.0.")
        if inside:
            name = f"{side}.mid.attn_1.{_named(rest, ATTENTION)}"
            value = value[:, :, None, None] if value.ndim == 2 else value  # there a convolution
        yield name, value


def _open_clip(encoder):
    state = encoder.state_dict()
    for name, value in state.items():
        layer = re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)", name)
        if name == "text_projection.weight":
            yield "text_projection", value.T
        elif layer is None:
            yield ENDS[name], value
        elif ".q_proj." in name:
            three = [state[name.replace(".q_proj.", f".{each}_proj.")] for each in "qkv"]
            kind = name.rpartition(".")[2]
            yield f"transformer.resblocks.{layer[1]}.attn.in_proj_{kind}", torch.cat(three)
        elif not re.search(r"\.[kv]_proj\.", name):
            yield f"transformer.resblocks.{layer[1]}.{_named(layer[2], OPEN_CLIP)}", value


def _transformer(transformer):
    state, last = transformer.state_dict(), transformer.config.num_layers - 1
    queries = {
        "attn.to_q": ("x_block", "to_{}"),
        "attn.add_q_proj": ("context_block", "add_{}_proj"),
    }
    for name, value in state.items():
        if name.startswith("norm_out.linear") or f"{last}.norm1_context.linear" in name:
            value = torch.cat(value.chunk(2)[::-1])  # there the shift is before the scale
        layer = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if layer is None:
            yield _named(name, TRANSFORMER), value
        elif layer[2] in queries:
            block, pattern = queries[layer[2]]
            before = name.rpartition(f".{layer[2].partition('.')[2]}.")[0]
            three = [state[f"{before}.{pattern.format(each)}.{layer[3]}"] for each in "qkv"]
            yield f"joint_blocks.{layer[1]}.{block}.attn.qkv.{layer[3]}", torch.cat(three)
        elif not re.fullmatch(r"attn\.(to_[kv]|add_[kv]_proj)", layer[2]):
            yield f"joint_blocks.{layer[1]}.{_named(layer[2], JOINT)}.{layer[3]}", value
