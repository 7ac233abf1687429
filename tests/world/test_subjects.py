"""Held-out characters: what stays, what moves, and that no training picture gave them away."""

from dataclasses import fields

import numpy as np
import pytest

from pti_pipeline.world import factors as f
from pti_pipeline.world import render
from pti_pipeline.world.meaning import meaning
from pti_pipeline.world.subjects import (
    CHARACTERS,
    CONTROLS,
    EVEN_REACH,
    FOLDERS,
    MOCHI,
    TWINS,
    twins,
    views,
)

APPEARANCE = {"species", "color", "belly", "hat", "hat_color", "emblem", "eyes"} | {
    "rgb",
    "belly_rgb",
    "hat_rgb",
}


def changed(before, after):
    names = [x.name for x in fields(before)]
    return {n for n in names if (getattr(before, n) != getattr(after, n)).any()}


def test_eight_characters_of_many_species_with_a_trait_no_caption_can_name():
    assert len(CHARACTERS) >= 8
    assert len({c.species for c in CHARACTERS}) >= 4
    assert len({c.name for c in CHARACTERS}) == len(CHARACTERS)
    for who in CHARACTERS:
        assert who.emblem in f.UNNAMED_EMBLEMS
        assert "emblem" not in meaning(f"a {who.color} {who.species} with a {who.emblem}")


@pytest.mark.parametrize("who", CHARACTERS, ids=lambda c: c.name)
def test_a_folder_shows_one_character_in_many_places(who):
    pictures = views(who, 16)
    for name in APPEARANCE:
        assert len(np.unique(getattr(pictures, name), axis=0)) == 1, name
    assert f.SPECIES[pictures.species[0]] == who.species
    assert f.EMBLEMS[pictures.emblem[0]] == who.emblem
    assert set(pictures.scene) == set(range(len(f.SCENES)))
    assert len(np.unique(pictures.x)) == 16


def test_smaller_folders_are_the_beginning_of_larger_ones():
    largest = views(MOCHI, FOLDERS[-1])
    for n in FOLDERS:
        assert not changed(views(MOCHI, n), largest[:n])
    assert changed(views(MOCHI, 6, seed=1), largest[:6]) >= {"x", "y", "scene"}


@pytest.mark.parametrize("what", CONTROLS)
def test_a_control_folder_holds_one_thing_constant(what):
    free, held = views(MOCHI, 8), views(MOCHI, 8, constant=what)
    assert changed(free, held) == set(TWINS[what])
    for name in TWINS[what]:
        assert len(np.unique(getattr(held, name))) == 1


@pytest.mark.parametrize("kind", TWINS)
def test_twins_differ_in_what_they_say_and_in_nothing_else(kind):
    pictures = views(MOCHI, 8)
    assert changed(pictures, twins(pictures, 0, kind)) == set(TWINS[kind])
    assert changed(pictures, twins(pictures, 0)) == {n for names in TWINS.values() for n in names}
    assert changed(twins(pictures, 0, kind), twins(pictures, 1, kind))
    different = (render(pictures) != render(twins(pictures, 0, kind))).any((1, 2, 3))
    assert different.all()


def test_a_smaller_reach_brings_positions_together():
    wide, even = views(MOCHI, 16), views(MOCHI, 16, reach=EVEN_REACH)
    assert changed(wide, even) == {"x", "y"}
    assert np.ptp(even.x) == pytest.approx(EVEN_REACH * np.ptp(wide.x))
    assert np.ptp(even.y) == pytest.approx(EVEN_REACH * np.ptp(wide.y))
