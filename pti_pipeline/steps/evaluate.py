"""The evaluation step: metrics and a sample grid for a run, or for every run of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from tqdm import tqdm

from pti_pipeline import evaluation, lora
from pti_pipeline.bundle import LORA_FILE, PIVOT_FILE
from pti_pipeline.characters import Characters, draw, preview
from pti_pipeline.data import Subject, load_subject
from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.evaluation import EDITS, PLAIN
from pti_pipeline.families import load
from pti_pipeline.families.base import BaseModel
from pti_pipeline.metrics import relative_gain
from pti_pipeline.pivot import load_pivot
from pti_pipeline.settings import BaseSettings, SampleSettings
from pti_pipeline.tracking.find import Found, fetch, get_run, members
from pti_pipeline.tracking.runs import open_run
from pti_pipeline.tracking.write import add_metrics
from pti_pipeline.world.reader import Reader, load_reader


@dataclass(frozen=True)
class Measured:
    """Samples of some characters read back, and the metrics on the fixed bank.

    Attributes
    ----------
    plain, edits : list of dict, length K
        Factors read from samples of :data:`PLAIN` and of :data:`EDITS`; empty without a reader.
    bank : list of dict, length K
        Reconstruction metrics by logged name.
    """

    plain: list[dict[str, Tensor]]
    edits: list[dict[str, Tensor]]
    bank: list[dict[str, float]]


def evaluate(
    where: BaseSettings,
    run_id: str,
    samples: int,
    edit_seeds: int,
    how: SampleSettings,
    study: str = "",
) -> str:
    """Measure the runs of ``run_id`` and log the numbers in each; return this step's run id.

    Parameters
    ----------
    where : BaseSettings
    run_id : str
        A run of invert or finetune, or a sweep's summary run: then all of its runs.
    samples : int
        Samples without a position in the prompt, for appearance, leak and diversity.
    edit_seeds : int
        Samples of each edit prompt.
    how : SampleSettings
    study : str
        Run id of the study that this belongs to.
    """
    target = get_run(run_id)
    runs = [r for r in members(target) if r.tags.get("pti.outcome") == "finished"]
    if not runs:
        raise UsageError("E212", f"run '{target.name}' has no finished training", "train first")
    base = load(where.base, where.device, where.precision)
    subject = load_subject(Path(runs[0].tags["pti.images"]), base.resolution)
    reader = load_reader() if where.base == "world" else None
    params = {**asdict(where), **asdict(how), "samples": samples, "edit_seeds": edit_seeds}
    tags = {"pti.step": "evaluate", "pti.study": study, "pti.evaluated": target.id}
    with open_run(f"evaluate {target.name}", {**params, "run": target.id}, tags) as run:
        measure = _Meter(base, subject, reader, samples, edit_seeds, how)
        shapes = [list(group) for _, group in groupby(sorted(runs, key=_shape), _shape)]
        with tqdm(total=2 + len(shapes), desc="evaluating", unit="part") as bar:
            word = Characters(runs[0].tags["pti.initializer"], torch.zeros(1, 0, 1))
            references = {"class": measure(word)}
            bar.update()
            if runs[0].tags["pti.step"] == "finetune":
                pivot = _load(runs[:1], base)[0]
                references["pivot"] = measure(pivot)
            bar.update()
            for alike in shapes:
                who, states, config = _load(alike, base)
                with _tuned(base, states, config):
                    tuned = measure(who)
                    grids = preview(base, who, how)
                rows = measure.compare(tuned, references)
                for found, row, picture in zip(alike, rows, grids, strict=True):
                    add_metrics(found, row)
                    run.log_image(f"samples/{found.name.replace('=', ' ')}", picture, 0)
                bar.update()
        return run.id


@dataclass(frozen=True)
class _Meter:
    """Measures characters on one base and subject, always with the same draws."""

    base: BaseModel
    subject: Subject
    reader: Reader | None
    samples: int
    edit_seeds: int
    how: SampleSettings

    def __call__(self, who: Characters) -> Measured:
        bank = evaluation.reconstruction(self.base, who, self.subject)
        if self.reader is None:
            return Measured([], [], bank)
        seeds = list(range(self.samples))
        plain = draw(self.base, who, [PLAIN] * self.samples, seeds, self.how)
        prompts = [text for text, _, _ in EDITS for _ in range(self.edit_seeds)]
        asked = list(range(self.edit_seeds)) * len(EDITS)
        edits = draw(self.base, who, prompts, asked, self.how)
        return Measured(
            evaluation.read_all(self.reader, plain), evaluation.read_all(self.reader, edits), bank
        )

    def compare(self, tuned: Measured, references: dict[str, Measured]) -> list[dict[str, float]]:
        """Metrics of each character, by logged name."""
        nearest = list(references.values())[-1]
        before = references["class"].bank[0]["reconstruction/bank_loss"]
        rows = []
        for k, bank in enumerate(tuned.bank):
            loss = bank["reconstruction/bank_loss"]
            row = {**bank, "reconstruction/bank_gain": relative_gain(loss, before)}
            if self.reader is not None:
                training = self.reader.read(self.subject.images)
                obeyed = evaluation.obedience(tuned.edits[k], self.edit_seeds)
                usual = evaluation.obedience(nearest.edits[0], self.edit_seeds)
                row["reconstruction/appearance"] = evaluation.appearance(tuned.plain[k], training)
                row["reconstruction/appearance_before"] = evaluation.appearance(
                    nearest.plain[0], training
                )
                row["editability/obedience"] = obeyed
                row["editability/relative"] = obeyed / usual
                row |= evaluation.leaks(
                    evaluation.layouts(tuned.plain[k]),
                    {n: evaluation.layouts(m.plain[0]) for n, m in references.items()},
                    evaluation.layouts(training),
                )
            rows.append(row)
        return rows


def _load(
    runs: Sequence[Found], base: BaseModel
) -> tuple[Characters, list[dict[str, Tensor]], dict[str, object]]:
    """Pivots and, for tuned runs, LoRAs of all runs."""
    if any(run.tags["pti.base_fingerprint"] != base.fingerprint for run in runs):
        name = runs[0].tags["pti.base"]
        raise ModelError("E404", f"these runs were trained on base '{name}'", f"use --base {name}")
    pivots, states = [], []
    config: dict[str, object] = {}
    for run in runs:
        with TemporaryDirectory() as folder:
            pivots.append(load_pivot(fetch(run, f"pivot/{PIVOT_FILE}", Path(folder))))
            if run.tags["pti.step"] == "finetune":
                state, config = base.load_lora(fetch(run, f"lora/{LORA_FILE}", Path(folder)))
                states.append(state)
    vectors = torch.stack([pivot.embedding for pivot in pivots])
    return Characters(pivots[0].token, vectors), states, config


def _shape(run: Found) -> tuple[str, ...]:
    """Return what runs must have in common to be drawn in one batch."""
    return tuple(run.params.get(key, "") for key in ("vectors", "rank", "alpha"))


@contextmanager
def _tuned(
    base: BaseModel, states: list[dict[str, Tensor]], config: dict[str, object]
) -> Iterator[None]:
    if not states:
        yield
        return
    adapter = lora.attach_states(base.denoiser, states, config)
    try:
        yield
    finally:
        lora.detach(adapter)
