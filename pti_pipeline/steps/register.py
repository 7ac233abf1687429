"""The registration step: a chosen LoRA and its pivot become a version of a registered model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from pti_pipeline.bundle import BUNDLE_FILE, LORA_FILE, PIVOT_FILE
from pti_pipeline.errors import UsageError
from pti_pipeline.tracking import registry
from pti_pipeline.tracking.find import Found, fetch, get_run
from pti_pipeline.tracking.runs import open_run

SHOWN = ("distance/", "reconstruction/", "editability/", "leak/", "diversity/")


def register(run_id: str, name: str, alias: str, study: str = "") -> tuple[str, str]:
    """Register a run's character and move ``alias`` to it.

    Parameters
    ----------
    run_id : str
        A run of finetune or invert, or a sweep's summary run: then the one chosen in it.
    name : str
        Of the registered model; the placeholder token's letters by default (empty text).
    alias : str
    study : str
        Run id of the study that this belongs to.

    Returns
    -------
    str, str
        The model's name and the version's number.
    """
    found = get_run(run_id)
    found = get_run(found.tags.get("pti.choice", found.id))
    if found.tags.get("pti.step") not in ("invert", "finetune"):
        raise UsageError("E215", f"run '{found.name}' holds no character", "give a finetune run")
    token = found.tags["pti.token"]
    name = name or re.sub(r"[^\w-]+", "", token) or "character"
    tags = {"pti.step": "register", "pti.study": study, "pti.registered": found.id}
    with open_run(f"register {name}", {"run": found.id, "name": name, "alias": alias}, tags) as run:
        with TemporaryDirectory() as folder:
            bundle = _bundle(found, Path(folder))
            facts = {
                k.replace("/", "."): f"{v:.6g}"
                for k, v in found.metrics.items()
                if k.startswith(SHOWN)
            }
            tags = {k: v for k, v in found.tags.items() if k.startswith("pti.")}
            version = registry.register(
                name,
                bundle,
                found.id,
                f"a photo of {token}",
                {**tags, **facts},
                _card(found, token),
                alias,
            )
        run.set_tags({"pti.model": name, "pti.version": version})
    return name, version


def _bundle(run: Found, folder: Path) -> Path:
    bundle = folder / "bundle"
    bundle.mkdir()
    shutil.copy(fetch(run, f"pivot/{PIVOT_FILE}", folder), bundle)
    if run.tags["pti.step"] == "finetune":
        shutil.copy(fetch(run, f"lora/{LORA_FILE}", folder), bundle)
    facts = {
        "base": run.tags["pti.base"],
        "base_fingerprint": run.tags["pti.base_fingerprint"],
        "token": run.tags["pti.token"],
        "initializer": run.tags["pti.initializer"],
        "run": run.id,
    }
    (bundle / BUNDLE_FILE).write_text(json.dumps(facts, indent=2), encoding="utf-8")
    return bundle


def _card(run: Found, token: str) -> str:
    return (
        f"Character `{token}` (from `{run.tags['pti.initializer']}`) on base model "
        f"`{run.tags['pti.base']}`: run `{run.name}` at distance "
        f"{run.metrics['distance/delta_norm']:.3g}. Write `{token}` in a prompt to draw it."
    )
