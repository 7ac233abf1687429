"""One character's metrics against others that were measured at equal seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pti_pipeline import evaluation, metrics
from pti_pipeline.meter import Equipment, Measured, Meter, equipment

References = Mapping[str, Measured]
"""``class`` (the class word on the base model) and, of a tuning, ``pivot``, in this order."""


def compare(
    meter: Meter, measured: Measured, references: References
) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics of one character by logged name, and tags that say what is missing and why."""
    kit = equipment(meter)
    row = _bank(measured, references["class"])
    tags: dict[str, str] = {}
    if kit.readers.factors:
        row |= _world(meter, kit, measured, references)
    else:
        for found, missing in (
            _layouts(kit, measured, references),
            _edits(measured, list(references.values())[-1]),
        ):
            row |= found
            tags |= missing
    return row | _likeness(kit, measured, references["class"]), tags


def _bank(measured: Measured, usual: Measured) -> dict[str, float]:
    own, other = measured.bank, usual.bank
    loss, share = "reconstruction/bank_loss", "overpowering/share"
    return {
        **own,
        "reconstruction/bank_gain": metrics.relative_gain(own[loss], other[loss]),
        "overpowering/relative": own[share] / other[share],
    }


def _world(
    meter: Meter, kit: Equipment, measured: Measured, references: References
) -> dict[str, float]:
    """What the factor reader sees: appearance, obedience, positions and scenes."""
    nearest = list(references.values())[-1]
    obeyed, usual = (evaluation.obedience(m.edits, meter.edit_seeds) for m in (measured, nearest))
    places = {name: evaluation.layouts(m.plain) for name, m in references.items()}
    scenes = {name: m.plain["scene"] for name, m in references.items()}
    own = evaluation.layouts(measured.plain)
    return {
        "reconstruction/appearance": evaluation.appearance(measured.plain, kit.training),
        "reconstruction/appearance_before": evaluation.appearance(nearest.plain, kit.training),
        "editability/obedience": obeyed,
        "editability/relative": obeyed / usual if usual else np.nan,
        **evaluation.leaks(own, places, evaluation.layouts(kit.training)),
        **evaluation.copying(own, places["class"], evaluation.layouts(kit.training)),
        **evaluation.scene_leak(measured.plain["scene"], scenes, kit.training["scene"]),
        "diversity/positions": metrics.position_diversity(own, places["class"]),
    }


def _layouts(
    kit: Equipment, measured: Measured, references: References
) -> tuple[dict[str, float], dict[str, str]]:
    """What masks tell: leak of layouts and of background colors, apart."""
    row: dict[str, float] = {}
    tags: dict[str, str] = {}
    for group, key in (("leak/", "layout"), ("leak/background_", "background")):
        own, training = measured.plain[key].numpy(), kit.training[key].numpy()
        others = {name: m.plain[key].numpy() for name, m in references.items()}
        reason = evaluation.too_few(own, others, training)
        if reason:
            tags[f"pti.absent.leak.{key}"] = reason
        else:
            row |= evaluation.leaks(own, others, training, group)
        if key == "layout":
            empty = np.isnan(own).any(1)
            row["leak/empty_masks"] = float(empty.sum())
            if not reason:
                usual = others["class"][:, :2]
                there = ~np.isnan(usual).any(1)
                row["diversity/positions"] = metrics.position_diversity(
                    own[~empty, :2], usual[there]
                )
    return row, tags


def _edits(measured: Measured, nearest: Measured) -> tuple[dict[str, float], dict[str, str]]:
    """How much of the nearest reference's answer to edit prompts is left, by CLIP."""
    if "clip_t" not in measured.edits:
        return {}, {}
    own, usual = (evaluation.margin(m.edits) for m in (measured, nearest))
    if usual <= 0:
        return {}, {"pti.absent.editability": "CLIP tells no edit of the reference's from another"}
    return {"editability/relative": own / usual}, {}


def _likeness(kit: Equipment, measured: Measured, usual: Measured) -> dict[str, float]:
    """What CLIP and DINO see, each also over the class word's."""
    row: dict[str, float] = {}
    for key, name in (("clip", "clip_i"), ("dino", "dino")):
        if key in kit.training:
            own, other = (
                evaluation.likeness(m.plain[key], kit.training[key]) for m in (measured, usual)
            )
            row |= {f"reconstruction/{name}": own, f"reconstruction/{name}_relative": own / other}
    if "clip_t" in measured.edits:
        own, other = (float(m.edits["clip_t"].mean()) for m in (measured, usual))
        row |= {"editability/clip_t": own, "editability/clip_t_relative": own / other}
        row |= {"editability/clip_t_margin": evaluation.margin(measured.edits)}
    return {name: value for name, value in row.items() if not np.isnan(value)}
