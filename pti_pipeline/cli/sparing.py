"""Options that let a base model take less memory."""

from __future__ import annotations

import click

PRECISION = click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Of the frozen base.",
)
OFFLOAD = click.option(
    "--offload",
    default="no",
    show_default=True,
    type=bool,
    help="Have on the GPU only the parts of the base in use: yes or no.",
)
BASE_BITS = click.option(
    "--base-bits",
    default="16",
    show_default=True,
    type=click.Choice(["16", "8", "4"]),
    callback=lambda _, __, value: int(value),
    help="Of the denoiser's linear layers: 16, which is as --precision says, 8 or 4.",
)
