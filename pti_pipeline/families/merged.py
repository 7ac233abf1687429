"""A pipeline that needs no loaders: the LoRA in its weights, the token among its words."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pti_pipeline import lora


def save_merged(
    pipeline: Any,
    readers: Sequence[tuple[str, str]],
    tokens: list[str],
    vectors: Tensor,
    denoiser: nn.Module,
    adapter: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None,
    folder: Path,
) -> None:
    """Write a pipeline's folder; the pipeline itself is then what it was, bit for bit.

    Parameters
    ----------
    pipeline : DiffusionPipeline
    readers : sequence of (str, str)
        Its tokenizers and text encoders that learn the token, by name.
    tokens : list of str
        One for each vector, as :func:`pti_pipeline.pivot.placeholder_tokens` names them: diffusers
        puts all of them where a prompt has the first.
    vectors : Tensor, shape (n, H)
        Side by side, those of each encoder.
    denoiser : nn.Module
        The pipeline's.
    adapter : pair of mappings, optional
        A LoRA's weights and settings, see :func:`pti_pipeline.lora.attach_states`.
    folder : Path

    Raises
    ------
    ModelError
        If the LoRA does not fit.
    """
    words: dict[str, Any] = {}
    encoders = {name: getattr(pipeline, name) for _, name in readers}
    facts = {key: value for key, value in pipeline.config.items() if key in _settings(pipeline)}
    with _moved(_moves(denoiser, encoders, adapter)):
        for names in readers:
            tokenizer, encoder = copy.deepcopy([getattr(pipeline, name) for name in names])
            width = encoder.get_input_embeddings().embedding_dim
            _add_words(tokenizer, encoder, tokens, vectors[:, :width])
            words |= dict(zip(names, (tokenizer, encoder), strict=True))
            vectors = vectors[:, width:]
        whole = type(pipeline)(**{**pipeline.components, **words}, **facts)
        whole.save_pretrained(folder)
    for name in ("model_index.json", "*/config.json"):
        for path in folder.glob(name):
            _forget_place(path)


def _add_words(tokenizer: Any, encoder: Any, tokens: list[str], vectors: Tensor) -> None:
    """Let a tokenizer know further words, and an encoder their vectors (n, H).

    The end token is written down: an outdated one would let pooled states be the words' own.
    """
    tokenizer.add_tokens(tokens)
    size = encoder.get_input_embeddings().num_embeddings
    encoder.resize_token_embeddings(size + len(tokens), mean_resizing=False)
    encoder.get_input_embeddings().weight.data[size:] = vectors
    encoder.config.eos_token_id = tokenizer.eos_token_id


def _settings(pipeline: Any) -> set[str]:
    """Names of what a pipeline is made with besides its parts."""
    return {*inspect.signature(type(pipeline)).parameters} - {*pipeline.components}


def _moves(
    denoiser: nn.Module,
    encoders: Mapping[str, nn.Module],
    adapter: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None,
) -> dict[nn.Linear, Tensor]:
    """What a LoRA adds to each layer's weights."""
    if adapter is None:
        return {}
    attached = lora.attach_states(denoiser, [adapter[0]], adapter[1], encoders)
    lora.detach(attached)
    return {la.linear: la.change(0) for la in attached.layers.values()}


@contextmanager
def _moved(moves: Mapping[nn.Linear, Tensor]) -> Iterator[None]:
    """Let layers have other weights for a while; afterwards they have their very own."""
    before = {layer: layer.weight for layer in moves}
    try:
        for layer, move in moves.items():
            layer.weight = nn.Parameter(layer.weight + move.to(layer.weight.dtype), False)
        yield
    finally:
        for layer, weight in before.items():
            layer.weight = weight


def _forget_place(path: Path) -> None:
    """Take out of a configuration where on this machine the base was."""
    config = json.loads(path.read_text("utf-8"))
    if config.pop("_name_or_path", None):
        path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
