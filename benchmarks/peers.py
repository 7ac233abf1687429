"""The peers' own training loops against ours, on the same model, batch and machine.

Their programs are in no package: ``make bench PEERS=<folder>`` finds them in the checkouts
``diffusers`` (github.com/huggingface/diffusers) and ``lora`` (github.com/cloneofsimo/lora).
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import ours, toy
from benchmarks.peer_process import Peer, Script, running
from benchmarks.timing import Row, clock, ratio
from pti_pipeline.batches import prepare
from pti_pipeline.data import load_subject
from pti_pipeline.families import load

NEVER = 10**6
STEPS, WARM = 4, 2
"""Steps of a turn, whose time is their median; and those before the first, which don't count."""
PRECISIONS = {"cpu": "fp32", "cuda": "bf16"}


@dataclass(frozen=True)
class Bench:
    """What both sides are given.

    Attributes
    ----------
    checkouts : Path
        Folder with the peers' checkouts.
    model, pictures : Path
    side : int
        Of the pictures, in pixels.
    device : str
        ``cpu`` (float32, one thread) or ``cuda`` (bfloat16).
    turns : int
    """

    checkouts: Path
    model: Path
    pictures: Path
    side: int
    device: str
    turns: int


def rows(checkouts: Path, runs: int) -> Iterator[Row]:
    """Measure every peer on the toy model."""
    with TemporaryDirectory() as name:
        shapes, folder = toy.toy(), Path(name)
        side = shapes.vae["sample_size"]
        model, pictures = toy.build(shapes, folder / "model"), toy.paint(folder / "pictures", side)
        bench = Bench(checkouts, model, pictures, side, "cpu", max(3, runs // 4))
        yield from diffusers_rows(bench, "invert", {1: (1.4, 1.6), 4: (1.25, 1.5)})
        yield from diffusers_rows(bench, "finetune", {1: (1.3, 1.5), 4: (1.28, 1.5)})
        yield from cloneofsimo_rows(bench)


def diffusers_rows(
    bench: Bench, stage: str, gates: dict[int, tuple[float | None, float | None]]
) -> Iterator[Row]:
    """The script of a stage in diffusers' examples, for each batch size with its gate and aim."""
    folder = bench.checkouts / "diffusers" / "examples"
    path, own = {
        "invert": (
            folder / "textual_inversion" / "textual_inversion.py",
            {
                "train_data_dir": bench.pictures,
                "placeholder_token": ours.TOKEN,
                "initializer_token": ours.INITIALIZER,
                "save_steps": NEVER,
            },
        ),
        "finetune": (
            folder / "dreambooth" / "train_dreambooth_lora.py",
            {
                "instance_data_dir": bench.pictures,
                "instance_prompt": f"a photo of {ours.INITIALIZER}",
                "rank": ours.RANK,
            },
        ),
    }[stage]
    for batch, (goal, aim) in gates.items():
        common = {
            "pretrained_model_name_or_path": bench.model,
            "output_dir": "{output}",
            "resolution": bench.side,
            "train_batch_size": batch,
            "max_train_steps": NEVER,
            "checkpointing_steps": NEVER,
            "mixed_precision": {"cpu": "no", "cuda": "bf16"}[bench.device],
        }
        place = "GPU: " if bench.device == "cuda" else ""
        name = f"{place}diffusers {path.name} step / ours, batch {batch}"
        yield _row(bench, name, Script(path, common | own), stage, batch, goal, aim)


def cloneofsimo_rows(bench: Bench) -> Iterator[Row]:
    """lora_pti's two stages: as much work as ours, so no text encoder is tuned and no GEGLU."""
    common: dict[str, Any] = {
        "pretrained_model_name_or_path": str(bench.model),
        "instance_data_dir": str(bench.pictures),
        "output_dir": "{output}",
        "placeholder_tokens": ours.TOKEN,
        "use_template": "object",
        "resolution": bench.side,
        "color_jitter": False,
        "gradient_accumulation_steps": 1,
        "max_train_steps_ti": NEVER,
        "max_train_steps_tuning": NEVER,
        "save_steps": NEVER,
        "lora_rank": ours.RANK,
        "lora_unet_target_modules": {"CrossAttention", "Attention"},
        "train_text_encoder": False,
        "device": bench.device,
    }
    for stage, word, goal, aim in (
        ("invert", "inversion", 1.05, 1.2),
        ("finetune", "tuning", 1.1, 1.2),
    ):
        own = {"initializer_tokens": ours.INITIALIZER, "perform_inversion": stage == "invert"}
        path, function = bench.checkouts / "lora", "lora_diffusion.cli_lora_pti:train"
        name = f"cloneofsimo lora_pti {word} step / ours, batch 1"
        yield _row(bench, name, Script(path, common | own, function), stage, 1, goal, aim)


def _row(
    bench: Bench,
    name: str,
    script: Script,
    stage: str,
    batch: int,
    goal: float | None,
    aim: float | None,
) -> Row:
    base = load(str(bench.model), bench.device, PRECISIONS[bench.device])
    material = prepare(base, load_subject(bench.pictures, base.resolution), [ours.TOKEN])
    own = ours.STAGES[stage](base, material, [1e-4], batch)

    def step() -> float:
        start = clock(bench.device)
        next(own)
        return clock(bench.device) - start

    def turn(peer: Peer, steps: int) -> tuple[float, float]:
        return statistics.median(peer.steps(steps)), statistics.median(step() for _ in range(steps))

    with running(script, bench.device) as peer:
        turn(peer, WARM)
        theirs, mine = zip(*(turn(peer, STEPS) for _ in range(bench.turns)), strict=True)
    value, spread = ratio(theirs, mine)
    each = " and ".join(f"{statistics.median(s) * 1e3:.0f}" for s in (theirs, mine))
    note = f"{each} ms; {_commit(script.path)}"
    return Row(name, value, goal, aim, spread, bench.turns, note=note)


def _commit(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    command = ["git", "-C", str(folder), "log", "-1", "--format=commit %h of %cs"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "commit unknown"
