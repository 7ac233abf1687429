"""The generation step: pictures from registered versions, runs or bundles' folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from pti_pipeline.bundle import draw_bundles, load_bundles
from pti_pipeline.characters import together
from pti_pipeline.errors import UsageError
from pti_pipeline.figures import grid
from pti_pipeline.settings import BaseSettings, SampleSettings
from pti_pipeline.steps.packing import find_bundle
from pti_pipeline.tracking.runs import open_run

LONGEST = 1000
"""Letters of a prompt; text encoders read about 300."""


def generate(
    where: BaseSettings,
    models: Sequence[str],
    weights: Sequence[float],
    prompt: str,
    count: int,
    seed: int,
    how: SampleSettings,
    output: Path,
) -> list[Path]:
    """Draw ``count`` pictures with consecutive seeds; return their files.

    Parameters
    ----------
    where : BaseSettings
        An empty base means the one that the first character was trained on.
    models : sequence of str
        Characters to draw together: ``models:/<name>@<alias>``, ``models:/<name>/<version>``, a
        run id (of finetune or invert, or a sweep that chose one), or a bundle's folder.
    weights : sequence of float
        Of their LoRAs; none for 1 each.
    prompt : str
        ``{}`` stands for the characters' tokens.
    count, seed : int
    how : SampleSettings
    output : Path
        Folder for ``seed-<n>.png`` and ``grid.png``.

    Raises
    ------
    UsageError
        If something is no such character, tokens clash, or weights are not one for each.
    ModelError
        If files have changed, or the base model is another.
    """
    if weights and len(weights) != len(models):
        what = f"{len(weights)} weights are given for {len(models)} characters"
        raise UsageError("E253", what, "give one for each, separated by commas")
    with TemporaryDirectory() as temporary:
        folders = [find_bundle(model, Path(temporary) / str(i)) for i, model in enumerate(models)]
        base, bundles = load_bundles(folders, where.base, where.device, where.precision)
    together([bundle.pivot for bundle in bundles])  # before the run: tokens may clash
    _check_prompt(prompt, [bundle.pivot.token for bundle in bundles])
    seeds = list(range(seed, seed + count))
    params = {
        "model": ",".join(models),
        "weights": ",".join(f"{weight:g}" for weight in weights),
        "prompt": prompt,
        "count": count,
        "seed": seed,
    }
    with open_run(f"generate {params['model']}", params, {"pti.step": "generate"}) as run:
        pictures = draw_bundles(base, bundles, [prompt] * count, seeds, how, weights)
        output.mkdir(parents=True, exist_ok=True)
        files = [output / f"seed-{s}.png" for s in seeds]
        for file, picture in zip(files, pictures, strict=True):
            Image.fromarray(picture).save(file)
        laid = grid(pictures, min(count, 4))
        Image.fromarray(laid).save(output / "grid.png")
        run.log_image("samples", laid, 0)
    return [*files, output / "grid.png"]


def _check_prompt(prompt: str, tokens: Sequence[str]) -> None:
    """Raise ``UsageError`` if a prompt names none of the characters, or never ends."""
    if len(prompt) > LONGEST:
        what = f"the prompt has {len(prompt)} letters"
        raise UsageError("E262", what, f"use at most {LONGEST}")
    if "{}" not in prompt and not any(token in prompt for token in tokens):
        what = f"the prompt '{prompt}' names no character"
        raise UsageError("E262", what, f"write {{}} or {tokens[0]} in it")
