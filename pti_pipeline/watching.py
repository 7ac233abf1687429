"""What probes tell of a training under way: its distance in function space, gains, and a leak."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import t as student_t
from torch import Tensor

from pti_pipeline import distance
from pti_pipeline.preview import WatchSettings
from pti_pipeline.probes import TERCILES, Probe, Reading
from pti_pipeline.settings import TrainSettings
from pti_pipeline.twins import ALL

OFTEN = 50
"""Steps between two looks for a leak."""


def function_distance(probe: Probe, now: Reading, before: Reading) -> dict[str, float]:
    """Distance between two models' functions, by logged name; 0 is the same function.

    In all, by family of prompts and by tercile of the noise: see
    :func:`pti_pipeline.distance.function_gap`.
    """
    moved, size = distance.function_gap(now.answers, before.answers)
    rows = {"distance/function": moved.sum() / size.sum()}
    for i, family in enumerate(probe.function.groups):
        rows[f"distance/function_{family}"] = moved[i].sum() / size[i].sum()
    for i, tercile in enumerate(TERCILES):
        rows[f"distance/function_{tercile}"] = moved[:, i].sum() / size[:, i].sum()
    return {name: float(value) for name, value in rows.items()}


def gains(now: Reading, before: Reading) -> dict[str, float]:
    """Gains over the base model, as shares of its loss on the training pictures.

    ``twins/appearance`` is the gain on twins that share only the character, on its own latents
    where these are known, as a share of the base's loss there; higher is better.
    ``twins/memorised`` is what the whole training pictures gained beyond whole such twins, as a
    share of the base's loss on the former, ``twins/position``,
    ``twins/pose`` and ``twins/scene`` what they gained beyond twins in which only this is
    another; 0 is best.
    """
    scale = before.losses["train"].mean()
    gain = {k: float((before.losses[k] - loss).mean() / scale) for k, loss in now.losses.items()}
    own = "subject" if "subject" in now.losses and before.losses["subject"].sum() > 0 else ALL
    appearance = float(1 - now.losses[own].mean() / before.losses[own].mean())
    rows = {"twins/appearance": appearance, "twins/memorised": gain["train"] - gain[ALL]}
    alone = [kind for kind in gain if kind not in ("train", ALL, "subject")]
    return rows | {f"twins/{kind}": gain["train"] - gain[kind] for kind in alone}


def position_learnt(now: Reading, before: Reading) -> bool:
    """Whether the training pictures gained more than their twins at other positions.

    True if the one-sided 95 % lower bound over pictures (Student's t) is above 0: with a single
    picture it never is.
    """
    gain = {k: before.losses[k] - now.losses[k] for k in ("train", "position")}
    values = gain["train"] - gain["position"]
    n = len(values)
    if n < 2:
        return False
    return bool(values.mean() > student_t.ppf(0.95, n - 1) * values.std() / n**0.5)


def judge(
    probe: Probe,
    now: Sequence[Reading],
    before: Sequence[Reading],
    experiments: Sequence[TrainSettings],
    stop: Tensor,
    step: int,
) -> list[dict[str, float]]:
    """Metrics of K experiments by logged name; sets ``stop`` where one is to stop at a leak.

    That is judged at every :data:`OFTEN` steps alone, so that it does not depend on what else is
    looked at on the way.
    """
    for k, settings in enumerate(experiments):
        watched = settings.stop_at_leak and step % OFTEN == 0
        if watched and position_learnt(now[k], before[k]):
            stop[k] = True
    pairs = list(zip(now, before, strict=True))
    return [function_distance(probe, a, b) | gains(a, b) for a, b in pairs]


def watch_steps(watch: WatchSettings, experiments: Sequence[TrainSettings]) -> set[int]:
    """Steps at which trainings are probed: every :data:`OFTEN` too if one may stop at a leak."""
    steps = experiments[0].steps
    marks = set(probe_steps(steps, watch.probes))
    often = range(OFTEN, steps, OFTEN) if any(e.stop_at_leak for e in experiments) else ()
    return marks | set(often)


def probe_steps(steps: int, count: int) -> tuple[int, ...]:
    """At most ``count`` steps from 1 to ``steps``, evenly spaced in their logarithm.

    Examples
    --------
    >>> probe_steps(1000, 7)
    (1, 3, 10, 32, 100, 316, 1000)
    >>> probe_steps(3, 20)
    (1, 2, 3)
    >>> probe_steps(1000, 1), probe_steps(1000, 0)
    ((1000,), ())
    """
    if count < 2:
        return (steps,) * count
    return tuple(sorted({round(steps ** (i / (count - 1))) for i in range(count)}))
