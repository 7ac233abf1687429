"""Finds in a program's syntax tree what runs code that a file, or a text, brings along."""

from __future__ import annotations

import ast
from collections.abc import Iterator

MODULES = {"pickle", "_pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve"}
CALLS = {
    "torch.load", "torch.save", "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "tempfile.mktemp",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all",
    "numpy.savez", "numpy.savez_compressed",
}  # fmt: skip
"""By their full names, whatever they are called where they are used."""
MUST_BE = {
    "shell": False,
    "allow_pickle": False,
    "trust_remote_code": False,
    "use_safetensors": True,
    "weights_only": True,
}
"""What these keywords may say, of any call."""
AUTOMATIC = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor")
"""Classes that take code from a folder, or from the hub, if they are let."""
WITHOUT_WEIGHTS = ("Tokenizer", "Config")
"""How classes end that load no weights."""


def found_in(text: str) -> list[str]:
    """Tell every danger of a program's text, each with its line."""
    tree = ast.parse(text)
    names = dict(_imported(tree))
    nodes = sorted(
        (node for node in ast.walk(tree) if isinstance(node, ast.stmt | ast.expr)),
        key=lambda node: node.lineno,
    )
    return [f"{node.lineno}: {what}" for node in nodes for what in _dangers(node, names)]


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Full names of what a program imports, by the names it gives them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield (
                    name.asname or name.name.partition(".")[0],
                    (name.name if name.asname else name.name.partition(".")[0]),
                )
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield name.asname or name.name, f"{node.module}.{name.name}"


def _dangers(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        modules = [name.name for name in node.names]
        yield from (name for name in modules if name.partition(".")[0] in MODULES)
    elif isinstance(node, ast.ImportFrom):
        if str(node.module).partition(".")[0] in MODULES:
            yield str(node.module)
        yield from (f"{node.module}.{n.name}" for n in node.names if _banned(node, n))
    elif isinstance(node, ast.Attribute | ast.Name):
        name = _full(node, names)
        if name in CALLS or name.partition(".")[0] in MODULES:
            yield name
    elif isinstance(node, ast.Call):
        yield from _said(node, names)


def _banned(node: ast.ImportFrom, name: ast.alias) -> bool:
    return f"{node.module}.{name.name}" in CALLS


def _said(call: ast.Call, names: dict[str, str]) -> Iterator[str]:
    """What a call says that it must not, or must say and does not."""
    said = {word.arg: word.value for word in call.keywords}
    for key in MUST_BE.keys() & said.keys():
        value = said[key]
        if not (isinstance(value, ast.Constant) and value.value is MUST_BE[key]):
            yield f"{key}={ast.unparse(value)}"
    name = _full(call.func, names)
    if name == "numpy.save" and "allow_pickle" not in said:
        yield "numpy.save without allow_pickle=False"
    if name.endswith(".from_pretrained"):
        kind = name.split(".")[-2]
        if not kind.endswith(WITHOUT_WEIGHTS) and "use_safetensors" not in said:
            yield f"{kind}.from_pretrained without use_safetensors=True"
        if (kind.startswith(AUTOMATIC) or kind == "kind") and "trust_remote_code" not in said:
            yield f"{kind}.from_pretrained without trust_remote_code=False"


def _full(node: ast.AST, names: dict[str, str]) -> str:
    """Full name of ``a.b.c``, ``a`` as it was imported; what is no name is empty text."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    name = ".".join([names.get(node.id, node.id), *reversed(parts)])
    return name.removeprefix("builtins.")
