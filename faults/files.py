"""Malformed files, folders, words and stores, each given to the command that reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save

from faults.parameters import Case
from faults.pictures import bad_files, bad_places, encoded
from faults.stage import Stage
from pti_pipeline.bundle import BUNDLE_FILE, LORA_FILE, PIVOT_FILE, file_hashes

TOKENS = {
    "": "E203", "two words": "E203", " ": "E203", "a\tb": "E203", "{}": "E203", "<{x}>": "E203",
    "\x1b[2J": "E203", "<" + "x" * 64 + ">": "E203", "\u200b": "E203", "a\u00a0b": "E203",
    "rabbit": "E204", "Rabbit": "E204", "cat</w>": "E204", "<|endoftext|>": "E204", "a": "E204",
    "oto": "E204", "hot": "E204",
}  # fmt: skip
INITIALIZERS = ("", "hippopotamus", "two words", "é", "<|endoftext|>", "雪", "cat dog " * 500)
PICKLE = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x0btouch PWNED\x94\x85\x94R\x94."
OLD_PICKLE = b"cposix\nsystem\np0\n(Vtouch PWNED\np1\ntp2\nRp3\n."
SENTENCE = b"No weights, but a sentence."
"""A text that ends as the oldest pickles do."""
NO_WEIGHTS = (b"", PICKLE, OLD_PICKLE, SENTENCE, b"\xff" * 99)
ROWS = (
    "{", "[]", "5", "null", "[" * 9999, "{}", '{"file_name": "0.png"}', '{"text": "x"}',
    '{"file_name": "0.png", "text": null}', '{"file_name": 5, "text": "x"}',
    '{"file_name": "../0.png", "text": "x"}', '{"file_name": "/etc/passwd", "text": "x"}',
    '{"file_name": "0.png", "text": "x"}\n' * 2, "\x00", "file_name,text\n0.png,x",
)  # fmt: skip
SIDECARS = (b"\xff\xfe", b"\x00", b"\x1b[2J", b"x" * 1001, b"\x80\x04pickle", b" " * 10_000_001)
STORES = {
    "http://127.0.0.1:9": "E501", "http://[": "E501", "http://127.0.0.1:99999": "E501",
    "http://": "E501", "https://127.0.0.1:9": "E501", "postgresql://127.0.0.1:9/x": "E501",
    "mysql://127.0.0.1:9/x": "E501", "nonsense": "E504", "nonsense://x": "E504",
    "sqlite:////dev/null/x.db": "E501", "sqlite:///pictures": "E501", "sqlite:///0.db": "E501",
    "ftp://127.0.0.1/x": "E504", "C:\\runs": "E504", "sqlite:": "E501", "::": "E504",
}  # fmt: skip


def files(stage: Stage) -> Iterator[Case]:
    """Cases whose fault is in a file or in a word that the base model reads."""
    good = f"--images={stage.folder / 'pictures'}"
    one = ("sweep", "--lrs=0.001", good)
    for token, code in TOKENS.items():
        yield Case(("invert", good, f"--token={token}"), code)
    yield Case((*one, "--token=rabbit"), "E204")
    for word in INITIALIZERS:
        yield Case(("invert", good, f"--initializer={word}"), "E205")
    yield Case((*one, "--initializer=hippopotamus"), "E205")
    yield from _pictures(stage)
    yield from _captions(stage)
    yield from _bases(stage)
    yield from _bundles(stage)
    yield from _foreign(stage)
    for number, (uri, code) in enumerate(STORES.items()):
        (stage.folder / "0.db").write_bytes(b"no database " * 99)
        words = (("evaluate", "--run=" + "0" * 32), ("invert", good, "--study=" + "0" * 32))
        yield Case(words[number % 2], code, {"MLFLOW_TRACKING_URI": uri})
    yield Case(("invert", good), "E504", {"MLFLOW_EXPERIMENT_ID": "99"})
    yield Case(("invert", good), "E504", {"MLFLOW_RUN_ID": "0" * 32})
    yield Case(("invert", "--lr=0.1"), "E260", {"PTI_DEBUG": "perhaps"})
    model = f"--model={stage.folder / 'bundle'}"
    for path in ("mlflow.db", "mlflow.db/x", "/proc/nowhere", "x" * 300):
        for words in (("report", "--run=x"), ("generate", model), ("world", "render"), ("claims",)):
            option = "--folder" if words[-1] in ("render", "claims") else "--output"
            yield Case((*words, f"{option}={path}"), "E263")
        for option in ("results", "output"):
            yield Case(("world", "check", f"--{option}={path}/a"), "E263")


def _folder(stage: Stage, *, pictures: bool = True) -> Path:
    """Make a fresh folder, with good pictures or without."""
    path = stage.folder / f"folder-{len(list(stage.folder.iterdir()))}"
    if pictures:
        return Path(shutil.copytree(stage.folder / "pictures", path))
    path.mkdir()
    return path


def _pictures(stage: Stage) -> Iterator[Case]:
    """Every bad file beside good ones, and folders that are none."""
    for number, (name, (data, _)) in enumerate(bad_files().items()):
        folder = _folder(stage)
        (folder / name).write_bytes(data)
        entry = (("invert",), ("sweep", "--lrs=0.001"))[number % 2]
        yield Case((*entry, f"--images={folder}"), "E302")
        if name not in ("phone.heic",):
            masked = _folder(stage)
            (masked / "0-mask.png").write_bytes(data)
            yield Case(("invert", f"--images={masked}"), "E310")
    places = _folder(stage)
    bad_places(places)
    yield Case(("invert", f"--images={places}"), "E302")
    empty = _folder(stage, pictures=False)
    texts = _folder(stage, pictures=False)
    (texts / "a.txt").write_text("a caption alone")
    for path in (empty, texts, stage.folder / "mlflow.db", "nowhere", "x" * 300, "/dev/null", "~"):
        yield Case(("invert", f"--images={path}"), "E301")
    tuning = ("finetune", f"--pivot={stage.runs['inversion']}")
    yield Case((*tuning, f"--images={empty}"), "E301")
    yield Case((*tuning, f"--images={places}"), "E302")


def _captions(stage: Stage) -> Iterator[Case]:
    for text in ROWS:
        folder = _folder(stage)
        (folder / "metadata.jsonl").write_text(text, "utf-8")
        yield Case(("invert", f"--images={folder}"), "E303")
    for data in SIDECARS:
        folder = _folder(stage)
        (folder / "0.txt").write_bytes(data)
        yield Case(("invert", f"--images={folder}"), "E320")
    folder = _folder(stage)
    (folder / "metadata.jsonl").write_bytes(b"\xff\xfe\x00")
    yield Case(("invert", f"--images={folder}"), "E303")
    folder = _folder(stage)
    (folder / "1-mask.png").write_bytes(encoded("PNG"))
    (folder / "0-mask.png").symlink_to(folder / "nothing")
    yield Case(("invert", f"--images={folder}"), "E310")


def _bases(stage: Stage) -> Iterator[Case]:
    """Folders and files that hold no base model."""
    indices = ("{", "[]", "null", "5", "{}", "[" * 9999, '{"_class_name": null}', "\x00")
    for text in indices:
        folder = _folder(stage, pictures=False)
        (folder / "model_index.json").write_text(text)
        code = "E406" if "null}" in text else "E401"
        yield Case(("invert", f"--base={folder}"), code)
    folder = _folder(stage, pictures=False)
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    yield Case(("invert", f"--base={folder}"), "E406")
    folder = _folder(stage, pictures=False)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    yield Case(("invert", f"--base={folder}"), "E401")
    for number, data in enumerate((PICKLE, OLD_PICKLE, SENTENCE, b"", save({"x": torch.zeros(2)}))):
        path = stage.folder / f"base-{number}.safetensors"
        path.write_bytes(data)
        yield Case(("invert", f"--base={path}"), _refusal(data, "E401"))
    for base in (
        "",
        ".",
        str(stage.folder / "pictures"),
        "a/b/c",
        "a//b",
        "x" * 300,
        "no.ckpt/x/y",
    ):
        yield Case(("invert", f"--base={base}"), "E401")


def _bundles(stage: Stage) -> Iterator[Case]:
    """Bundles of which one file is another."""
    good = stage.folder / "bundle"
    facts = json.loads((good / BUNDLE_FILE).read_text())
    lacking = [json.dumps({k: v for k, v in facts.items() if k != name}) for name in facts]
    wrong = [json.dumps(facts | {"files": value}) for value in (5, None, "x", ["x"])]
    texts = ["", "{", "[]", "null", "5", '"x"', "\x00", "[" * 9999, *wrong]
    texts += [text for text in lacking if "initializer" in text]
    for number, text in enumerate(texts):
        folder = Path(shutil.copytree(good, stage.folder / f"bundle-{number}"))
        (folder / BUNDLE_FILE).write_text(text)
        yield Case((("generate", "export")[number % 2], f"--model={folder}"), "E426")
    changes = {
        (PIVOT_FILE, "E402"): (*NO_WEIGHTS, save({"<mei>": torch.zeros(1, 64)})),
        (LORA_FILE, "E405"): (*NO_WEIGHTS, save({"x": torch.zeros(1, 64)})),
    }
    for (name, code), datas in changes.items():
        for number, data in enumerate(datas):
            folder = Path(shutil.copytree(good, stage.folder / f"changed-{name[:4]}-{number}"))
            (folder / name).write_bytes(data)
            yield Case(("generate", f"--model={folder}"), "E425")
            sealed = Path(shutil.copytree(folder, f"{folder}-sealed"))
            (sealed / BUNDLE_FILE).unlink()
            text = json.dumps({**facts, "files": file_hashes(sealed)})
            (sealed / BUNDLE_FILE).write_text(text)
            told = _refusal(data, code)
            yield Case(("generate", f"--model={sealed}"), told)
            yield Case(("export", f"--model={sealed}", f"--output={sealed}-out"), told)
    for prompt in ("", "a cat", "<mochi> on the beach", "{0}", "x{}" * 500):
        yield Case(("generate", f"--model={good}", f"--prompt={prompt}"), "E262")
    yield Case(("generate", f"--model={good}", "--weights=1,1"), "E253")
    yield Case(("export", f"--model={good}", f"--output={stage.folder / 'mlflow.db'}"), "E243")


def _refusal(data: bytes, otherwise: str) -> str:
    """Code that refuses a file of weights for its bytes, whatever its name."""
    return "E410" if data in (PICKLE, OLD_PICKLE) else otherwise


def _foreign(stage: Stage) -> Iterator[Case]:
    """LoRAs and embeddings of other trainers that are none."""
    words = ("--token=<z>", "--initializer=cat", f"--images={stage.folder / 'pictures'}")
    good = words, "--samples=8"
    nan = torch.full((1, 64), torch.nan)
    width = {"emb_params": torch.zeros(1, 7)}
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    misfit = {f"{layer}.lora_{k}.weight": torch.zeros(3, 3) for k in ("up", "down")}
    embeddings = {
        "a.bin": (PICKLE, "E410"), "a.pt": (PICKLE, "E410"), "a.safetensors": (PICKLE, "E410"),
        "f.safetensors": (OLD_PICKLE, "E410"), "g.safetensors": (SENTENCE, "E412"),
        "b.safetensors": (b"", "E412"), "c.safetensors": (save(width), "E412"),
        "d.safetensors": (save({"a": nan, "b": nan.clone()}), "E412"),
        "e.safetensors": (save({"a": torch.zeros(2, 2, 2)}), "E412"),
    }  # fmt: skip
    loras = {
        "a.bin": (PICKLE, "E410"), "a.ckpt": (PICKLE, "E410"), "a.safetensors": (PICKLE, "E410"),
        "f.safetensors": (OLD_PICKLE, "E410"), "g.safetensors": (SENTENCE, "E411"),
        "b.safetensors": (b"", "E411"), "c.safetensors": (save(width), "E411"),
        "d.safetensors": (save(misfit), "E411"), "e.safetensors": (save({}), "E411"),
    }  # fmt: skip
    for kind, files in (("embedding", embeddings), ("lora", loras)):
        for name, (data, code) in files.items():
            path = stage.folder / f"{kind}-{name}"
            path.write_bytes(data)
            yield Case(("evaluate", f"--{kind}={path}", *good[0], good[1]), code)
        code = "E412" if kind == "embedding" else "E411"
        yield Case(("evaluate", f"--{kind}=nowhere.safetensors", *good[0], good[1]), code)
    yield Case(("evaluate", "--lora=a", "--token=<z>"), "E231")
