"""Malformed parameters of every command, each with the code that it must end with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """A command line that must be refused.

    Attributes
    ----------
    words : tuple of str
    code : str
        Of ``docs/reference/errors.md``: its first digit is the exit code.
    environment : dict of str to str
        What is set for it alone.
    """

    words: tuple[str, ...]
    code: str
    environment: dict[str, str] = field(default_factory=dict)


NEEDED = {"finetune": "--pivot=x", "select": "--run=x", "register": "--run=x", "report": "--run=x"}
"""Options that a command can't do without."""

COMMANDS = (
    "main", "invert", "finetune", "sweep", "evaluate", "select", "register", "report", "generate",
    "export", "claims", "sync", "ui", "memory",
    "world train", "world export", "world check", "world sample", "world render", "world blind",
)  # fmt: skip

NO_INTEGERS = ("", "abc", "1.5", "-1", "1e3", "nan", "0x10", "9" * 30, "1,2", "\u0661x", "yes")
NO_NUMBERS = ("", "abc", "nan", "inf", "-inf", "-1", "1,5", "0x1p", "1e", "half")
NO_CHOICES = ("", "tpu", "CPU?", "*", "no thing", "-")
NO_BOOLS = ("maybe", "2", "yess")

INTEGERS = {
    "main": ("steps", "batch-size", "rank", "vectors", "samples", "edit-seeds", "reg-every"),
    "invert": ("steps", "batch-size", "vectors", "seed", "sample-every", "probes"),
    "finetune": ("steps", "rank", "seed", "reg-every", "reg-bank", "micro-batch"),
    "sweep": ("batch-size", "vectors", "rank"),
    "evaluate": ("samples", "edit-seeds", "sampling-steps", "deciding"),
    "generate": ("count", "seed", "sampling-steps"),
    "ui": ("port",),
    "memory": ("batch-size", "micro-batch", "rank", "vectors", "pack"),
    "world train": ("seed", "updates"),
    "world render": ("count", "size", "seed"),
    "world sample": ("count", "sampling-steps"),
}
ABOVE_ZERO = ("steps", "batch-size", "rank", "vectors", "samples", "reg-every", "count", "size")
NUMBERS = {
    "main": ("kappa", "alpha"),
    "invert": ("clip", "until-distance", "ema"),
    "finetune": ("clip", "alpha", "kappa", "reg-weight", "weight-decay"),
    "sweep": ("until-distance",),
    "evaluate": ("guidance",),
    "generate": ("guidance",),
    "world sample": ("guidance",),
}
CHOICES = {
    "main": ("curve", "executor"),
    "invert": ("device", "at-distance", "optimizer", "norm"),
    "finetune": ("reg-latents", "reg-timesteps", "rslora", "text-encoder", "dora"),
    "sweep": ("stage", "executor", "precision"),
    "claims": ("claim",),
    "memory": ("optimizer", "rslora", "text-encoder", "dora", "precision"),
    "world check": ("quick",),
}
BOOLS = {
    "invert": "stop-at-leak",
    "finetune": "checkpointing",
    "register": "force",
    "ui": "open",
    "claims": "quick",
}

RATES = {
    "": "E201", "abc": "E201", "0": "E201", "-0.001": "E201", "nan": "E201", "inf": "E201",
    "-inf": "E201", "1e400": "E201", "0.1;0.2": "E201", "1e-3,": "E201", ",": "E201", " ": "E201",
    "0.1,,0.2": "E201", "0.1 0.2": "E201", "1/2": "E201", "0.01x": "E201", "1e-999": "E201",
    "$(id)": "E201", "0.1\n0.2": "E201",
}  # fmt: skip
RATE_LISTS = {
    **RATES, "0.1,x": "E201", "0.1,0": "E201", "0.1,nan": "E201", "0.1,0.1": "E202",
    "1e-3,0.001": "E202", ",".join(f"{i}e-6" for i in range(1, 1200)): "E202",
}  # fmt: skip
SEEDS = (
    "", "a", "1,", "1.5", "-1", "4294967296", "1,1", "0x1", "nan", ",", "0,1,01", "1 2",
    ",".join(map(str, range(1200))),
)  # fmt: skip
VARY = {
    "rank:4,8": "E218", "vectors:": "E218", "vectors": "E218", ":": "E218", "vectors:1,two": "E218",
    "vectors:0,1": "E202", "vectors:1,1": "E202", "lr:1,2": "E218", "seed:1": "E218",
    "steps:-1": "E202", "steps:10000000": "E202", "vectors:1.5": "E218", "clip:nan": "E202",
    "clip:-1": "E202", "at_distance:never": "E218", "__init__:1": "E218", "batch-size:1": "E218",
    "batch_size:0": "E202", "optimizer:sgd": "E202",
    ",".join(["vectors:1", *map(str, range(2, 1200))]): "E202",
}  # fmt: skip
TUNING_VARY = {
    "rank:0": "E202", "rank:9999": "E202", "alpha:0": "E202", "kappa:nan": "E202",
    "pivot:x": "E218", "regularizer:none,lora": "E232", "regularizer:weight-ball": "E232",
    "reg_weight:-1": "E202", "reg_latents:mine": "E202", "checkpointing:no,yes": "E218",
    "targets:to_k,to k": "E202", "targets:$(id)": "E202", "dora:maybe": "E202",
}  # fmt: skip
FACTORS = (
    "species=dog", "specie=cat", "species", "=", "species=", "column=much", "column=nan",
    "row=2", "size=-1", "scene=moon", "color=loud", "=cat", "species=cat,species",
)  # fmt: skip


def command(name: str, *words: str) -> tuple[str, ...]:
    """Words of a command line, with what the command can't do without."""
    needed = NEEDED.get(name)
    given = any(needed and word.startswith(needed.partition("=")[0] + "=") for word in words)
    return (*name.split(), *([needed] if needed and not given else []), *words)


def parameters() -> Iterator[Case]:
    """Parameters that are refused before anything is loaded."""
    for name in COMMANDS:
        for word in ("--nothing=1", "--debgu=yes", "--debug=maybe", "--debug", "surplus"):
            yield Case(command(name, word), "E260")
    for name, options in INTEGERS.items():
        for option in options:
            for value in (*NO_INTEGERS, *(["0"] if option in ABOVE_ZERO else [])):
                yield Case(command(name, f"--{option}={value}"), "E260")
    for name, options in NUMBERS.items():
        for option in options:
            for value in NO_NUMBERS:
                yield Case(command(name, f"--{option}={value}"), _number_code(option, value))
    for name, options in CHOICES.items():
        for option in options:
            for value in NO_CHOICES:
                yield Case(command(name, f"--{option}={value}"), "E260")
    for name, option in BOOLS.items():
        for value in NO_BOOLS:
            yield Case(command(name, f"--{option}={value}"), "E260")
    for name in NEEDED:
        yield Case((name,), "E260")
    yield from (Case(tuple(words.split()), "E260") for words in ("invrt", "world rendr", "--x"))
    yield from _lists()


def _number_code(option: str, value: str) -> str:
    """Which of the two refuses a number: the command line, or the settings."""
    try:
        number = float(value)
    except ValueError:
        return "E260"
    ranged = option in ("clip", "until-distance", "guidance", "ema", "weight-decay")
    return "E260" if ranged and number < 0 else "E202"


def _lists() -> Iterator[Case]:
    for name in ("invert", "finetune"):
        for text, code in RATES.items():
            yield Case(command(name, f"--lr={text}"), "E201" if code == "E201" else "E260")
        yield Case(command(name, "--lr=0.1,0.2"), "E260")
    for text, code in RATE_LISTS.items():
        yield Case(("sweep", f"--lrs={text}"), code)
        for option in ("inversion-lrs", "tuning-lrs", "regularized-lrs"):
            yield Case(("main", f"--{option}={text}"), code)
    for text in SEEDS:
        for name in ("sweep", "main"):
            yield Case((name, f"--seeds={text}"), "E202")
    many = ",".join(f"{i}e-6" for i in range(1, 101))
    yield Case(("sweep", f"--lrs={many}", "--seeds=" + ",".join(map(str, range(20)))), "E202")
    for text, code in VARY.items():
        yield Case(("sweep", f"--vary={text}"), code)
    tuning = ("sweep", "--stage=finetune", "--pivot=x")
    for text, code in TUNING_VARY.items():
        yield Case((*tuning, f"--vary={text}"), code)
    yield Case(("invert", "--ema=1"), "E202")
    yield Case(("invert", "--norm=vocabulary", "--at-distance=project"), "E202")
    yield Case(("sweep", "--stage=finetune"), "E260")
    yield Case((*tuning[:2], "--pivot=a,b", "--vary=rank:1,2"), "E260")
    yield Case((*tuning[:2], "--pivot=a,a"), "E202")
    for text in ("localty", "none,locality", "LOCALITY", " "):
        yield Case(command("finetune", f"--regularizer={text}"), "E232")
    yield Case(command("finetune", "--regularizer=weight-ball"), "E232")
    yield Case(command("finetune", "--regularizer=timestep-rank", "--rank=1"), "E232")
    learned = "--regularizer=prior-preservation", "--reg-latents=training"
    yield Case(command("finetune", *learned), "E232")
    for text in ("much", "1,inf", "nan", ",", "1;2"):
        yield Case(("generate", f"--weights={text}"), "E253")
    for text in ("gif", "", "kohya,", "all", "kohya,gif"):
        yield Case(("export", f"--form={text}"), "E240")
    yield Case(("export", "--form=kohya,kohya"), "E202")
    for text in FACTORS:
        yield Case(("world", "render", f"--factors={text}", "--folder=drawn"), "E217")
    for option in ("character", "constant", "twins"):
        yield Case(("world", "render", f"--{option}=nobody", "--folder=drawn"), "E217")
    for text in ("nothing", "reader,nothing", ","):
        yield Case(("world", "train", f"--parts={text}"), "E206")
    for words in ("--lora=a", "--embedding=a", "--run=a --lora=b", "", "--images=pictures"):
        yield Case(("evaluate", *words.split()), "E231")
