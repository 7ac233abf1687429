"""The generation step: pictures from a registered version, a run or a bundle's folder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from pti_pipeline.bundle import BUNDLE_FILE, draw_bundle, load_bundle
from pti_pipeline.errors import UsageError
from pti_pipeline.figures import grid
from pti_pipeline.settings import BaseSettings, SampleSettings
from pti_pipeline.tracking.registry import fetch_bundle
from pti_pipeline.tracking.runs import open_run


def generate(
    where: BaseSettings,
    model: str,
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
        An empty base means the one that the character was trained on.
    model : str
        ``models:/<name>@<alias>``, ``models:/<name>/<version>``, or a bundle's folder.
    prompt : str
        ``{}`` stands for the character's token.
    count, seed : int
    how : SampleSettings
    output : Path
        Folder for ``seed-<n>.png`` and ``grid.png``.
    """
    if not model.startswith("models:/") and not (Path(model) / BUNDLE_FILE).is_file():
        raise UsageError(
            "E216", f"'{model}' is no registered model", "write models:/<name>@champion"
        )
    with TemporaryDirectory() as temporary:
        is_folder = not model.startswith("models:/")
        folder = Path(model) if is_folder else fetch_bundle(model, Path(temporary))
        bundle = load_bundle(folder, where.base or None, where.device, where.precision)
    params = {"model": model, "prompt": prompt, "count": count, "seed": seed}
    with open_run(f"generate {model}", params, {"pti.step": "generate"}) as run:
        seeds = list(range(seed, seed + count))
        pictures = draw_bundle(bundle, [prompt] * count, seeds, how)
        output.mkdir(parents=True, exist_ok=True)
        files = [output / f"seed-{s}.png" for s in seeds]
        for file, picture in zip(files, pictures, strict=True):
            Image.fromarray(picture).save(file)
        laid = grid(pictures, min(count, 4))
        Image.fromarray(laid).save(output / "grid.png")
        run.log_image("samples", laid, 0)
    return [*files, output / "grid.png"]
