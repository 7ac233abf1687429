"""The evaluation step for a LoRA and an embedding made elsewhere: a run of its own."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from pti_pipeline import distance
from pti_pipeline.characters import Characters, class_word
from pti_pipeline.comparison import compare
from pti_pipeline.families.base import BaseModel
from pti_pipeline.meter import Case, Meter, equipment
from pti_pipeline.pivot import has_embedding_inside, load_embedding
from pti_pipeline.progress import tqdm
from pti_pipeline.readers import reader_names
from pti_pipeline.sharing import measure_all
from pti_pipeline.tracking.dataset import log_dataset
from pti_pipeline.tracking.runs import open_run


@dataclass(frozen=True)
class Files:
    """A character made elsewhere.

    Attributes
    ----------
    lora, embedding : Path or None
        At least one; an embedding inside the LoRA's file is taken where no other is given.
    token : str
        What stands for the character in a prompt. Without an embedding, plain words such as
        ``"sks dog"``.
    """

    lora: Path | None
    embedding: Path | None
    token: str


def evaluate_files(meter: Meter, files: Files, study: str = "") -> str:
    """Measure a character's files as a run is measured; return the run id.

    Parameters
    ----------
    meter : Meter
        Its ``images`` are what the files were trained on, its ``word`` their class word.
    files : Files
    study : str
        Run id of the study that this belongs to.

    Raises
    ------
    UsageError
        If the token can't be one, or names nothing.
    ModelError
        If a file may be a pickle or does not fit the base model.
    """
    if files.lora and not files.embedding and has_embedding_inside(files.lora):
        files = replace(files, embedding=files.lora)
    named = list(dict.fromkeys(path.name for path in (files.lora, files.embedding) if path))
    kit = equipment(meter)
    names = reader_names(kit.readers, kit.subject)
    who = _character(kit.base, files)
    moved = _distances(kit.base, files, meter.word)
    told = ("images", "samples", "edit_seeds", "clip_model", "dino_model")
    params = {
        **asdict(meter.where),
        **asdict(meter.how),
        **{k: getattr(meter, k) for k in told},
        **{k: getattr(files, k) or "" for k in ("lora", "embedding", "token")},
        "initializer": meter.word,
    }
    tags = {
        "pti.step": "evaluate",
        "pti.study": study,
        "pti.foreign": ", ".join(named),
        "pti.token": files.token,
        "pti.initializer": meter.word,
        "pti.images": str(meter.images),
        "pti.base": meter.where.base,
        "pti.base_fingerprint": kit.base.fingerprint,
        "pti.data_fingerprint": kit.subject.fingerprint,
        **names,
    }
    cases = {"class": Case(class_word(meter.word))}
    if files.lora and files.embedding:
        cases["pivot"] = Case(who)
    with open_run(f"evaluate {named[0]}", params, tags) as run:
        log_dataset([run], kit.subject, meter.images)
        measuring = measure_all(meter, [*cases.values(), Case(who, file=files.lora)])
        total = len(cases) + 1
        *references, own = tqdm(measuring, "evaluating", total, unit="character")
        metrics, missing = compare(meter, own, dict(zip(cases, references, strict=True)))
        run.log_metrics(moved | metrics)
        if missing:
            run.set_tags(missing)
        run.log_image(f"samples/{named[0]}", own.grid, 0)
        return run.id


def _character(base: BaseModel, files: Files) -> Characters:
    """The token with its vectors, or plain words that the LoRA answers to."""
    if files.embedding is None:
        return class_word(files.token)
    base.check_token(files.token)
    return Characters(files.token, _vectors(base, files.embedding)[None])


def _vectors(base: BaseModel, path: Path) -> Tensor:
    return load_embedding(path, base.widths)


def _distances(base: BaseModel, files: Files, word: str) -> dict[str, float]:
    """Distances by the names under which a training logs them; a LoRA's go before the token's."""
    found: dict[str, float] = {}
    if files.embedding:
        vectors = _vectors(base, files.embedding)[None]
        start = base.initializer_row(word).to("cpu").expand_as(vectors)
        travelled = float(distance.delta_norm(vectors, start))
        found = {
            "distance/delta_norm": travelled,
            "distance/embedding_norm": travelled,
            "distance/angle": float(distance.angle(vectors, start)),
            "distance/norm_ratio": float(distance.norm_ratio(vectors, base.vocabulary().cpu())),
        }
    if files.lora:
        with base.lora_file(files.lora) as moved:
            found["distance/delta_norm"] = moved.delta_norm
            found["distance/relative"] = moved.delta_norm / moved.base_norm
    log10 = math.log10(found["distance/delta_norm"] or math.nan)
    return found | {"distance/log10": log10}
