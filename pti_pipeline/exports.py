"""A character in the forms that other tools open: one file or folder each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from pti_pipeline import headers, kohya
from pti_pipeline.bundle import LORA_FILE, PIVOT_FILE
from pti_pipeline.errors import ModelError
from pti_pipeline.families.base import BaseModel
from pti_pipeline.lora_config import Config
from pti_pipeline.pivot import Pivot
from pti_pipeline.weights import OUR_KEY, read_weights, refuse_pickle, write_weights


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file of ours: path, weights and header, rank and alpha, and the denoiser it is of.

    It is scaled by ``alpha / rank``, which is all that other tools know: of rsLoRA this alpha is
    sqrt(rank) times the one it was trained with.
    """

    path: Path
    weights: Mapping[str, Tensor]
    header: Mapping[str, str]
    rank: int
    alpha: float
    part: str


@dataclass(frozen=True)
class Character:
    """What every form is written from.

    Attributes
    ----------
    pivot : Pivot
    pivot_file : Path
        That it was read from.
    lora : LoraFile or None
        None of a pivot alone.
    facts : Facts
    base : BaseModel or None
        Only ``merged`` needs it.
    """

    pivot: Pivot
    pivot_file: Path
    lora: LoraFile | None
    facts: headers.Facts
    base: BaseModel | None

    @property
    def word(self) -> str:
        """The token's letters."""
        return headers.word_of(self.pivot.token)


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA file of ours.

    Raises
    ------
    ModelError
        If it may be a pickle, is none of ours, is not finite, or draws other pictures in other
        tools.
    """
    refuse_pickle(path)
    try:
        weights, header = read_weights(path)
        settings = json.loads(header["lora_adapter_metadata"])
        parts = {key.partition(".")[0] for key in settings}
        (part,) = {name for name in parts if not name.startswith("text_encoder")}
        own = {k.removeprefix(f"{part}."): v for k, v in settings.items() if k.startswith(part)}
        made = Config.read(own | dict(json.loads(header.get(OUR_KEY, "{}"))))
    except Exception as error:
        what = f"'{path.name}' is no LoRA with its settings ({error})"
        raise ModelError("E405", what, "give one that pti trained") from error
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ModelError("E403", f"the LoRA in '{path.name}' is not finite", "tune at a lower rate")
    if made.timesteps:
        what = "this LoRA uses fewer ranks at noisier timesteps, which other tools can't"
        raise ModelError("E421", what, "draw it with pti generate")
    return LoraFile(path, weights, header, made.rank, made.plain_alpha, part)


def _write_diffusers(who: Character, folder: Path) -> None:
    """Write what ``load_lora_weights`` reads, and ``load_textual_inversion`` tensor by tensor."""
    folder.mkdir()
    token = who.pivot.token
    vectors, header = read_weights(who.pivot_file)
    hint = f"write {token} in a prompt"
    _write(folder / PIVOT_FILE, vectors, header, who, "textual-inversion", token, hint)
    if lora := who.lora:
        hint = f"load {PIVOT_FILE} too, and {hint}"
        _write(folder / LORA_FILE, lora.weights, lora.header, who, "lora", token, hint)


def _write_embedding(who: Character, path: Path) -> None:
    """Write the embedding that A1111 and ComfyUI read: the file's name is its word."""
    vectors = kohya.embedding_weights(who.pivot)
    _write(path, vectors, {}, who, "textual-inversion", who.word, _in_prompt(who.word, who.word))


def _write_kohya(who: Character, path: Path) -> None:
    """Write the LoRA that A1111 and ComfyUI read, beside that embedding."""
    hint = f"with the embedding {who.word}: {_in_prompt(who.word, who.word)}"
    _write_kohya_lora(who, path, {}, hint)


def _write_bundle(who: Character, path: Path) -> None:
    """Write the LoRA with its embedding inside."""
    inside = kohya.bundled_weights(who.word, who.pivot)
    _write_kohya_lora(who, path, inside, _in_prompt(who.word, path.stem))


def _write_merged(who: Character, folder: Path) -> None:
    """Write the whole pipeline."""
    base = cast("BaseModel", who.base)  # loaded where this form is asked for
    base.save_merged(who.pivot, who.lora.path if who.lora else None, folder)


WRITERS: dict[str, tuple[str, Callable[[Character, Path], None]]] = {
    "diffusers": ("diffusers", _write_diffusers),
    "embedding": ("{word}.safetensors", _write_embedding),
    "kohya": ("{word}-lora.safetensors", _write_kohya),
    "bundle": ("{word}-bundle.safetensors", _write_bundle),
    "merged": ("merged", _write_merged),
}
"""By form: the name of its file or folder, and what writes it there."""


def _write_kohya_lora(who: Character, path: Path, inside: Mapping[str, Tensor], hint: str) -> None:
    lora = cast("LoraFile", who.lora)  # a pivot alone is not asked for this form
    weights = {**kohya.lora_weights(lora.weights, lora.alpha), **inside}
    header = headers.kohya(who.facts, path.stem, hint)
    _write(path, weights, header, who, "lora", who.word, hint)


def _in_prompt(word: str, stem: str) -> str:
    return f"write {word} (A1111) or embedding:{stem} (ComfyUI) in a prompt"


def _write(
    path: Path,
    weights: Mapping[str, Tensor],
    header: Mapping[str, str],
    who: Character,
    kind: str,
    trigger: str,
    hint: str,
) -> None:
    facts = who.facts
    spec = headers.modelspec(facts, kind, path.stem, trigger, hint)
    own = {**headers.own(facts), **spec, **headers.hashes(weights)}
    write_weights(path, weights, {**header, **own})
