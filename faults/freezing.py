"""A plugin of pytest for mutmut, which collects the tests once and forks for each mutant.

Every fork would otherwise look through all that torch and MLflow brought along for garbage, and
copy its memory by that: this makes a mutant ten times as fast.
"""

from __future__ import annotations

import gc

import pytest


def pytest_unconfigure(config: pytest.Config) -> None:
    """After tests were collected, leave what was imported alone."""
    if config.option.collectonly:
        gc.collect()
        gc.freeze()
