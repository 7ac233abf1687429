"""What a file of weights says of itself in its header, to people and to LoRA managers.

``pti.`` keys are our own; ``ss_`` keys are named by sd-scripts (``train_network.py``), and
``modelspec.`` keys by Stability AI's ModelSpec 1.0.1 (sd-scripts' ``sai_model_spec.py``). All
values are text. Nothing tells where files were on the machine that trained, and what isn't known
is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import PureWindowsPath

from safetensors.torch import save
from torch import Tensor

from pti_pipeline import __version__

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
LONGEST_NAME = 48
"""Letters of a file's name that come from a token: in UTF-8 four bytes each, of 255 in all."""
ARCHITECTURES = {
    (768, ""): "stable-diffusion-v1",
    (768, "unet"): "stable-diffusion-v1",
    (1024, ""): "stable-diffusion-v2",
    (1024, "unet"): "stable-diffusion-v2",
    (2048, "unet"): "stable-diffusion-xl-v1-base",
    (2048, "transformer"): "stable-diffusion-3-medium",
}
"""ModelSpec's names by the width of the embeddings, and the part that the LoRA is of."""
VERSIONS = {"stable-diffusion-v1": "sd_v1", "stable-diffusion-xl-v1-base": "sdxl_base_v1-0"}
"""sd-scripts' names for these; v2 comes in two kinds, and which of them is not known here."""


@dataclass(frozen=True)
class Facts:
    """What is known of a character.

    Attributes
    ----------
    token, initializer : str
    base : str
        As the user named it at training.
    fingerprint : str
        Of the base model.
    width : int
        Of the base's embeddings, H.
    rank, alpha : int, float
        Of the LoRA; 0 without one.
    part : str
        That the LoRA is of: ``unet`` or ``transformer``; empty without one.
    told : mapping
        Of the trainings, by names such as ``tuning.lr`` and ``inversion.distance.delta_norm``.
    date : datetime, optional
        When the last of them ended.
    """

    token: str
    initializer: str
    base: str
    fingerprint: str
    width: int
    rank: int
    alpha: float
    part: str
    told: Mapping[str, str]
    date: datetime | None = None


def word_of(token: str) -> str:
    """A token's letters: its word in A1111 and ComfyUI, which is its file's name.

    Examples
    --------
    >>> word_of("<mochi>")
    'mochi'
    """
    return re.sub(r"[^\w-]+", "", token).lstrip("-")[:LONGEST_NAME] or "character"


def base_name(base: str) -> str:
    """Name a base model without telling its place on the machine; a hub id stays whole.

    Examples
    --------
    >>> base_name("/home/someone/models/sd15.safetensors"), base_name("someone/sd15")
    ('sd15.safetensors', 'someone/sd15')
    """
    return base if HUB_ID.fullmatch(base) else PureWindowsPath(base).name


def own(facts: Facts) -> dict[str, str]:
    """Header of every file: what it was trained on, how far, and how."""
    known = {
        "token": facts.token,
        "initializer": facts.initializer,
        "base": base_name(facts.base),
        "base_fingerprint": facts.fingerprint,
        "version": __version__,
        **({"rank": str(facts.rank), "alpha": f"{facts.alpha:g}"} if facts.rank else {}),
        **facts.told,
    }
    return {f"pti.{name}": value for name, value in known.items()}


def modelspec(facts: Facts, kind: str, title: str, trigger: str, hint: str) -> dict[str, str]:
    """Header that model browsers show; ``kind`` is ``lora`` or ``textual-inversion``."""
    architecture = ARCHITECTURES.get((facts.width, facts.part), "stable-diffusion")
    known = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{architecture}/{kind}",
        "implementation": "diffusers",
        "title": title,
        "description": f"{facts.token}, learnt from '{facts.initializer}' by pivotal tuning",
        "trigger_phrase": trigger,
        "usage_hint": hint,
        **({"date": facts.date.isoformat(timespec="seconds")} if facts.date else {}),
    }
    return {f"modelspec.{name}": value for name, value in known.items()}


def kohya(facts: Facts, name: str, hint: str) -> dict[str, str]:
    """Header that LoRA managers show of a kohya LoRA; ``name`` is its file's stem."""
    of_tuning = {
        "ss_learning_rate": "lr",
        "ss_unet_lr": "lr",
        "ss_max_train_steps": "steps",
        "ss_steps": "steps_taken",
        "ss_seed": "seed",
        "ss_total_batch_size": "batch_size",
    }
    architecture = ARCHITECTURES.get((facts.width, facts.part), "")
    version = VERSIONS.get(architecture)
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(facts.rank),
        "ss_network_alpha": f"{facts.alpha:g}",
        "ss_output_name": name,
        "ss_sd_model_name": base_name(facts.base),
        "ss_training_comment": hint,
        "ss_optimizer": facts.told.get("tuning.optimizer", "adam").capitalize(),
        "ss_lr_scheduler": "constant",
        "ss_v2": str(architecture == "stable-diffusion-v2"),
        **({"ss_base_model_version": version} if version else {}),
        **{
            k: facts.told[f"tuning.{v}"]
            for k, v in of_tuning.items()
            if f"tuning.{v}" in facts.told
        },
        **({"ss_training_finished_at": str(facts.date.timestamp())} if facts.date else {}),
    }


def hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 over the bytes that follow a file's header, as ModelSpec and sd-scripts take it."""
    data = save(dict(tensors))
    start = 8 + int.from_bytes(data[:8], "little")
    digest = sha256(data[start:]).hexdigest()
    return {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
