"""What a user may set, checked where it is made; a value out of range names its remedy."""

from __future__ import annotations

from dataclasses import dataclass

from pti_pipeline.adaptation import Adaptation, check_held
from pti_pipeline.errors import UsageError
from pti_pipeline.objective import Objective
from pti_pipeline.ranges import (
    GUIDANCE,
    check_above_zero,
    check_between,
    check_from_zero,
    check_learning_rate,
    check_seed,
    check_within,
    check_word,
)

STEPS = 1000
"""Optimizer updates of every training, so that learning rates compare."""

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers that a LoRA adapts: the attention's projections."""

AT_DISTANCE = ("stop", "project")
"""What may happen at a bound on the distance."""
OPTIMIZERS = ("adam", "adam-8bit", "prodigy")
"""What updates the parameters; see :data:`pti_pipeline.optimizers.OPTIMIZERS`."""
NORMS = ("free", "vocabulary")
FORMS = ("diffusers", "embedding", "kohya", "bundle", "merged")
"""In which a character is exported."""
KOHYAS = ("kohya", "bundle")
"""Those of them with a LoRA under kohya's names."""
REG_LATENTS = ("base", "training")
REG_TIMESTEPS = ("even", "noisy")


@dataclass(frozen=True)
class BaseSettings:
    """Which base model, and where it runs; see :func:`pti_pipeline.families.load`."""

    base: str = "world"
    device: str = "auto"
    precision: str = "fp32"
    offload: bool = False
    base_bits: int = 16


@dataclass(frozen=True)
class TrainSettings(Objective):
    """One training of one experiment; what it descends is told by :class:`Objective`.

    Attributes
    ----------
    lr : float
        Adam's learning rate, constant; of Prodigy a factor beside its own estimate, usually 1.
    steps : int
        Optimizer updates.
    batch_size : int
        Rows of each update.
    seed : int
        Of every draw: picture, caption, timestep, noise and a LoRA's start.
    clip : float
        Largest L2 norm of the experiment's gradient; 0 leaves it alone.
    until_distance : float
        ``distance/delta_norm`` that it may travel; 0 is no bound.
    at_distance : str
        What happens there: ``stop``, or ``project``, which trains on at this distance (the
        projection of Gouk et al. 2021).
    stop_at_leak : bool
        Stop when the twins show that a position is being learnt.
    optimizer : str
        One of :data:`OPTIMIZERS`.
    ema : float
        Decay of the moving average that is shown and kept in place of the values; 0 is none.
    micro_batch : int
        Rows of each batch that go through the model at once; 0 is as many as memory holds.
    checkpointing : bool
        Compute anew in the backward pass what the forward pass would have to hold.
    """

    lr: float
    steps: int = STEPS
    batch_size: int = 4
    seed: int = 0
    clip: float = 0.0
    until_distance: float = 0.0
    at_distance: str = "stop"
    stop_at_leak: bool = False
    optimizer: str = "adam"
    ema: float = 0.0
    micro_batch: int = 0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_learning_rate(self.lr)
        for name in ("clip", "until_distance"):
            check_from_zero(name, getattr(self, name))
        check_word("at_distance", self.at_distance, AT_DISTANCE)
        check_word("optimizer", self.optimizer, OPTIMIZERS)
        for name, least in (("steps", 1), ("batch_size", 1), ("micro_batch", 0)):
            check_within(name, getattr(self, name), least)
        if not 0 <= self.ema < 1:
            raise UsageError("E202", f"ema is {self.ema}", "use 0, which is off, or less than 1")
        check_seed(self.seed)


@dataclass(frozen=True)
class InvertSettings(TrainSettings):
    """One inversion, of ``vectors`` learned vectors of the placeholder token.

    Their ``norm`` is ``free``, or after every update the ``vocabulary``'s median.
    """

    lr: float = 0.005
    vectors: int = 1
    norm: str = "free"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_within("vectors", self.vectors, 1)
        check_word("norm", self.norm, NORMS)
        if self.norm == "vocabulary" and self.at_distance == "project":
            what = "norm is 'vocabulary' and at_distance is 'project'"
            raise UsageError("E202", what, "use at_distance stop: they ask for other lengths")


@dataclass(frozen=True)
class FinetuneSettings(TrainSettings, Adaptation):
    """One LoRA around a pivot, with or without a regularizer; what it adapts is told there.

    Attributes
    ----------
    pivot : str
        Run id of the inversion, or of a sweep that chose one.
    rank, alpha : int, float
        The LoRA's inner dimension; it is scaled by ``alpha / rank``, or as ``rslora`` says.
    regularizer : str
        One of :data:`pti_pipeline.regularizers.REGULARIZERS`.
    reg_weight : float
        Of the regularizer's loss, beside 1 for that of the pictures (lambda).
    reg_every : int
        It is taken at every so many steps, and as many times as heavy (Karras et al. 2020).
    kappa : float
        Radius of locality's ball around the pivot, in distances from initializer to pivot.
    reg_latents : str
        What it is taken on: samples of the ``base`` model, or the ``training`` pictures.
    reg_timesteps : str
        Its weight by timestep: ``even``, or ``noisy``, in proportion to the timestep.
    reg_bank : int
        Answers of the base model to draw from, computed once; 0 asks the base at every step.
        Where noise is the target, it is drawn at every step anyway.
    weight_decay : float
        Decoupled weight decay of the LoRA's A and B (AdamW), in learning rates; 0 is none.
    """

    pivot: str = ""
    lr: float = 0.0003
    rank: int = 4
    alpha: float = 4.0
    regularizer: str = "none"
    reg_weight: float = 1.0
    reg_every: int = 1
    kappa: float = 0.5
    reg_latents: str = "base"
    reg_timesteps: str = "even"
    reg_bank: int = 256
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        Adaptation.__post_init__(self)
        for name, least in (("rank", 1), ("reg_every", 1), ("reg_bank", 0)):
            check_within(name, getattr(self, name), least)
        for name in ("alpha", "kappa"):
            check_above_zero(name, getattr(self, name))
        for name in ("reg_weight", "weight_decay"):
            check_from_zero(name, getattr(self, name))
        check_held(self, at_distance=self.at_distance, regularizer=self.regularizer)
        check_word("reg_latents", self.reg_latents, REG_LATENTS)
        check_word("reg_timesteps", self.reg_timesteps, REG_TIMESTEPS)
        check_regularizer(self)


def check_regularizer(settings: FinetuneSettings) -> None:
    """Raise ``UsageError`` if a regularizer can't work with the other settings."""
    name = settings.regularizer
    if name == "weight-ball" and not settings.until_distance:
        raise UsageError("E232", "weight-ball has no radius", "give it as --until-distance")
    if name == "timestep-rank" and settings.rank < 2:
        raise UsageError("E232", "timestep-rank has no rank to spare", "use --rank=2 or more")
    if name == "prior-preservation" and settings.reg_latents != "base":
        what = "prior-preservation learns samples of the base model, not the training pictures"
        raise UsageError("E232", what, "leave --reg-latents at base")


@dataclass(frozen=True)
class SampleSettings:
    """How pictures are drawn: steps of the base's scheduler, and the guidance scale."""

    steps: int = 20
    guidance: float = 3.0

    def __post_init__(self) -> None:
        check_within("sampling_steps", self.steps, 1)
        check_between("guidance", self.guidance, 1, GUIDANCE)
