"""Every key of the metrics' reference has its meaning, its unit and range, and its direction."""

import re

from documented import PAGE, untold

COLUMNS = ["key", "meaning", "unit, range", "better"]


def rows():
    """Cells of the tables of keys."""
    within = False
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells[:1] == ["key"]:
            assert cells == COLUMNS, line
            within = True
        elif within and cells and not set(line) <= set("|-"):
            yield cells
        within = within and bool(cells)


def test_no_cell_is_empty_and_every_unit_is_told():
    found = list(rows())
    assert len(found) > 50
    for cells in found:
        assert len(cells) == 4 and all(cells), cells
        assert cells[2] != "-", cells


def test_names_that_the_page_does_not_tell_are_noticed():
    names = ["train/loss", "leak/pivot_auc_high", "distance/function_class", "pti.reader.leak"]
    assert untold([*names, "leak/unheard", "reconstruction/pivot_class"]) == {
        "leak/unheard",
        "reconstruction/pivot_class",
    }
