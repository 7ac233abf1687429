"""The export step: a character's files in the forms that other tools open."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from pti_pipeline.errors import ModelError, UsageError
from pti_pipeline.exports import WRITERS, Character, read_lora
from pti_pipeline.families import load
from pti_pipeline.hashes import both
from pti_pipeline.headers import Facts
from pti_pipeline.pivot import load_pivot
from pti_pipeline.settings import KOHYAS
from pti_pipeline.steps.kept import Kept, find_kept, trainings
from pti_pipeline.tracking.runs import open_run


def export(
    model: str, forms: Sequence[str], output: Path, base: str = ""
) -> tuple[list[Path], list[str]]:
    """Write a character's files; what is there already is never overwritten.

    Parameters
    ----------
    model : str
        See :func:`pti_pipeline.steps.packing.find_bundle`.
    forms : sequence of str
        Of :data:`pti_pipeline.settings.FORMS`.
    output : Path
        Folder.
    base : str
        Where the base model is, for ``merged``; as at training by default.

    Returns
    -------
    list of Path
        What was written, one file or folder a form.
    list of str
        Forms left out, because a pivot alone has no LoRA.

    Raises
    ------
    UsageError
        If there is no such character, it has none of these forms, or ``output`` can't take them.
    ModelError
        If its files are not sound, or other tools would draw other pictures from them.
    """
    with TemporaryDirectory() as folder:
        kept = find_kept(model, Path(folder) / "kept")
        left_out = [form for form in forms if form in KOHYAS and not kept.lora]
        chosen = [form for form in forms if form not in left_out]
        if not chosen:
            what = f"a pivot alone, without a LoRA, has no {' and no '.join(left_out)}"
            raise UsageError("E241", what, "take the form diffusers or embedding")
        who = _read(kept, base, "merged" in chosen)
        _check_forms(who, chosen)
        names = {form: WRITERS[form][0].format(word=who.word) for form in chosen}
        _make_room(output, names.values())
        params = {"model": model, "form": ",".join(chosen), "output": output}
        tags = {"pti.step": "export", "pti.exported": kept.run.id if kept.run else ""}
        with open_run(f"export {who.word}", params, tags):
            _write(who, names, output)
    return [output / name for name in names.values()], left_out


def _read(kept: Kept, base: str, merged: bool) -> Character:
    """Read a character's files, and load its base where it is merged."""
    pivot, lora = load_pivot(kept.pivot), read_lora(kept.lora) if kept.lora else None
    told, date = trainings(kept.run)
    facts = Facts(
        token=pivot.token,
        initializer=pivot.initializer,
        base=kept.base,
        fingerprint=kept.fingerprint,
        width=pivot.embedding.shape[1],
        rank=lora.rank if lora else 0,
        alpha=lora.alpha if lora else 0.0,
        part=lora.part if lora else "",
        told=told,
        date=date,
    )
    model = load(base or kept.base, "cpu") if merged else None
    if model and model.fingerprint != kept.fingerprint:
        pair = both(kept.fingerprint, model.fingerprint)
        what = f"base model '{model.name}' is not the one this character was trained on ({pair})"
        raise ModelError("E404", what, "name the folder of the right base with --base")
    return Character(pivot, kept.pivot, lora, facts, model)


def _check_forms(who: Character, forms: Sequence[str]) -> None:
    """Raise ``UsageError`` if other tools have no names for such a LoRA's layers."""
    odd = [form for form in forms if form in KOHYAS]
    if odd and who.lora and who.lora.part != "unet":
        what = f"a LoRA of a {who.lora.part} has no form {' and no form '.join(odd)}"
        raise UsageError("E241", what, "take the form diffusers, which ComfyUI reads too")


def _make_room(output: Path, names: Collection[str]) -> None:
    """Make the folder, unless something that will be written is there already."""
    there = [name for name in names if os.path.lexists(output / name)]
    if there:
        what = f"'{output}' holds {', '.join(there)} already"
        raise UsageError("E242", what, "name another folder with --output, or move that away")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(output, error) from error


def _write(who: Character, names: Mapping[str, str], output: Path) -> None:
    """Write all forms aside first: an export that fails leaves nothing half-written."""
    try:
        with TemporaryDirectory(dir=output, prefix=".writing-") as aside:
            for form, name in names.items():
                WRITERS[form][1](who, Path(aside) / name)
            for name in names.values():
                (Path(aside) / name).rename(output / name)
    except (OSError, SafetensorError) as error:
        raise _unwritable(output, error) from error


def _unwritable(output: Path, error: Exception) -> UsageError:
    return UsageError("E243", f"can't write to '{output}' ({error})", "name another --output")
