"""What reads files, each given mutants: an error of ours, or what it promises."""

from __future__ import annotations

import json
import math
import warnings
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save
from torch import nn

from faults.drawn import json_mutant, mutant, tensors_mutant, text, value
from faults.pictures import encoded, gradient
from pti_pipeline import bundle, checkpoint, exports, kohya
from pti_pipeline.blending import LoRA, blended
from pti_pipeline.captions import read_captions, read_prompts
from pti_pipeline.families import foreign
from pti_pipeline.families.stable_diffusion import StableDiffusion
from pti_pipeline.folder import read_masks, read_pictures
from pti_pipeline.pivot import has_embedding_inside, load_embedding, load_pivot
from pti_pipeline.steps.measured import load_measured
from pti_pipeline.tracking import journal
from pti_pipeline.tracking.outbox import left_ones, take
from pti_pipeline.world.record import read_factors

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
MODES = ("RGB", "RGBA", "L", "P", "CMYK", "1", "I;16", "F", "LA")
RUN = "a" * 32


@cache
def _picture(kind: str, mode: str) -> bytes:
    try:
        return encoded(kind, gradient(24).convert(mode))
    except (OSError, ValueError):  # a mode that the format does not have
        return encoded(kind, gradient(24))


def pictures(rng: Random, folder: Path) -> None:
    """Mutants of pictures, and of masks beside good ones."""
    kind = rng.choice(FORMATS)
    path = folder / f"a.{kind.lower()}"
    path.write_bytes(mutant(rng, _picture(kind, rng.choice(MODES))))
    (picture,) = read_pictures([path], 16)
    assert picture.pixels.shape == (16, 16, 3) and picture.pixels.dtype == "uint8"
    if rng.random() < 0.2:
        (folder / "a-mask.png").write_bytes(mutant(rng, _picture("PNG", rng.choice(MODES))))
        (mask,) = read_masks([path], [picture], 16)
        assert mask is None or mask.shape == (16, 16)


def captions(rng: Random, folder: Path) -> None:
    """Texts beside pictures and tables of them."""
    paths = [folder / "a.png", folder / "b.png"]
    rows = [{"file_name": p.name, "text": text(rng)} for p in paths]
    if rng.random() < 0.5:
        table = b"\n".join(json_mutant(rng, row) for row in rows)
        (folder / "metadata.jsonl").write_bytes(table)
    if rng.random() < 0.5:
        (folder / "a.txt").write_bytes(mutant(rng, text(rng).encode("utf-8", "replace")))
    said, _ = read_captions(folder, paths)
    assert len(said) == 2 and all(c is None or ((c.isascii() or c) and "\n" not in c) for c in said)
    (folder / "prompts.txt").write_bytes(mutant(rng, b"a photo of {}\n\n{} in the snow\n"))
    assert all("{}" in prompt for prompt in read_prompts(folder / "prompts.txt", "templates"))


@cache
def _pivot() -> bytes:
    start = json.dumps([0.5] * 8)
    facts = {"token": "<mei>", "initializer": "cat", "start": start}
    return save({"<mei>": torch.ones(2, 8)}, facts)


def pivots(rng: Random, folder: Path) -> None:
    """Embeddings of ours and of others."""
    path = folder / "a.safetensors"
    path.write_bytes(tensors_mutant(rng, _pivot()))
    has_embedding_inside(path)
    for read in (lambda: load_embedding(path, [8]), lambda: load_pivot(path).embedding):
        vectors = read()
        assert vectors.ndim == 2 and vectors.dtype == torch.float32 and vectors.isfinite().all()


@cache
def _lora(name: str) -> bytes:
    tensors = {f"{name}.down.weight": torch.ones(2, 8), f"{name}.up.weight": torch.ones(8, 2)}
    facts = {"unet.r": 2, "unet.lora_alpha": 2.0, "unet.target_modules": ["to_q"]}
    return save(tensors, {"lora_adapter_metadata": json.dumps(facts), "pti": "{}"})


def loras(rng: Random, folder: Path) -> None:
    """LoRAs of ours, as they are exported."""
    path = folder / "a.safetensors"
    path.write_bytes(tensors_mutant(rng, _lora("unet.mid_block.attentions.0.to_q.lora")))
    found = exports.read_lora(path)
    assert found.rank > 0 and math.isfinite(found.alpha)
    kohya.lora_weights(found.weights, found.alpha)


@cache
def _base() -> tuple[StableDiffusion, nn.Module]:
    """What reads a LoRA of ours, and a denoiser that it fits; nothing else of a base model."""
    denoiser = nn.Module()
    denoiser.attn = nn.Module()
    denoiser.attn.to_q = nn.Linear(8, 8)
    return object.__new__(StableDiffusion), denoiser


def attached_loras(rng: Random, folder: Path) -> None:
    """LoRAs of ours, as they are drawn with; the denoiser is then as it was."""
    path, (base, denoiser) = folder / "a.safetensors", _base()
    layer = denoiser.attn.to_q
    path.write_bytes(tensors_mutant(rng, _lora("unet.attn.to_q.lora")))
    try:
        with blended(denoiser, [LoRA(*base.load_lora(path))], [1.0]):
            assert denoiser.attn.to_q(torch.ones(1, 8)).shape == (1, 8)  # overflow is for E427
    finally:
        assert denoiser.attn.to_q is layer


@cache
def _foreign(kind: str) -> bytes:
    layer = "unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    names = {
        "kohya": (f"lora_{layer}.lora_down.weight", f"lora_{layer}.lora_up.weight"),
        "peft": ("base_model.model.attn.to_q.lora_A.weight",) * 2,
        "diffusers": ("unet.attn.to_q.lora_A.weight", "unet.attn.to_q.lora_B.weight"),
        "old": ("unet.attn.to_q.lora.down.weight", "text_encoder.attn.to_q.lora_linear_layer.up"),
    }[kind]
    tensors = {names[0]: torch.ones(2, 8), names[1]: torch.ones(8, 2)}
    return save(tensors | ({f"lora_{layer}.alpha": torch.ones(())} if kind == "kohya" else {}))


def foreign_loras(rng: Random, folder: Path) -> None:
    """LoRAs of other trainers, up to what diffusers attaches."""
    path, (_, denoiser) = folder / "a.safetensors", _base()
    kind = rng.choice(("kohya", "peft", "diffusers", "old"))
    path.write_bytes(tensors_mutant(rng, _foreign(kind)))
    if kind == "peft":
        facts = {"r": 2, "lora_alpha": 2, "target_modules": ["to_q"]}
        (folder / "adapter_config.json").write_bytes(json_mutant(rng, facts))
    pipeline = SimpleNamespace(
        unet=denoiser,
        text_encoder=denoiser,
        lora_state_dict=StableDiffusionPipeline.lora_state_dict,
    )
    parts = ("unet", "text_encoder")
    state, facts = foreign._read(pipeline, parts, path)
    assert facts is None or isinstance(facts, dict)
    foreign._layers(pipeline, parts, path, state)


def bundles(rng: Random, folder: Path) -> None:
    """What a bundle says of itself."""
    (folder / "learned_embeds.safetensors").write_bytes(b"x")
    facts = {"base": "world", "base_fingerprint": "f", "token": "<mei>", "run": RUN}
    said = json_mutant(rng, {**facts, "files": bundle.file_hashes(folder)})
    (folder / bundle.BUNDLE_FILE).write_bytes(said)
    told = bundle.unseal(folder)
    assert all(isinstance(each, str) for each in told.values())


def journals(rng: Random, folder: Path) -> None:
    """What waits to be sent: a spoiled line is passed over, whole ones before it are not."""
    box = folder / RUN
    box.mkdir()
    path = box / "journal.jsonl"
    for step in range(3):
        journal.append(path, {"kind": "metrics", "to": RUN, "value": [["x", 1.0, 0, step]]})
    whole = path.read_bytes()
    path.write_bytes(spoiled := mutant(rng, whole))
    if rng.random() < 0.3:
        journal.append(path, value(rng))
    (box / "sent").write_text(text(rng, 2), "utf-8", "replace")
    first = whole[: whole.index(b"\n") + 1]
    kept = [entry for entry, _ in journal.read(path)]
    assert not spoiled.startswith(first) or len(kept) > 0
    assert left_ones(folder) == [RUN]
    taken = take(folder, RUN)
    assert taken is not None
    try:
        for entry, _ in taken.waiting():
            assert isinstance(entry["kind"], str) and isinstance(entry["to"], str)
        assert isinstance(taken.ends, bool) and all(isinstance(r, str) for r in taken.refused)
    finally:
        taken.close()


@cache
def _checkpoint() -> dict[str, bytes]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), 7, {"w": torch.ones(4)}, {"seed": 1})
        place = next(Path(folder).iterdir())
        return {path.name: path.read_bytes() for path in place.iterdir()}


def checkpoints(rng: Random, folder: Path) -> None:
    """Training states: a damaged one is passed over."""
    place = folder / "step-00000007"
    place.mkdir()
    files = _checkpoint()
    for name, data in files.items():
        if rng.random() < 0.4:
            data = (
                json_mutant(rng, json.loads(data)) if "json" in name else tensors_mutant(rng, data)
            )
        if rng.random() > 0.02:
            (place / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = checkpoint.newest(folder)
    assert found is None or (found.step == 7 and list(found.tensors) == ["w"])


@cache
def _measured() -> bytes:
    tensors = {"plain/x": torch.ones(2), "edits/x": torch.ones(2), "grid": torch.ones(4, 4, 3)}
    return save(tensors, {"bank": "0.5"})


def kept(rng: Random, folder: Path) -> None:
    """Measurements and factors that were kept: None if they are not whole."""
    path = folder / "a.safetensors"
    path.write_bytes(tensors_mutant(rng, _measured()))
    load_measured(path)
    (folder / "factors.json").write_bytes(json_mutant(rng, {"file": ["a.png"], "species": [0]}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_factors(folder, ["a.png"]) is None
