"""No value of a parameter is shell code; ``python -m faults.injection --long`` tries all of it."""

import subprocess

import pytest

from faults.injection import PAIRS, cases, entry_points, expected, measure, run_all, run_really
from faults.texts import SENTINEL, TEXTS


@pytest.mark.slow  # make faults does it
def test_every_value_arrives_as_it_was_given():
    found = measure()
    assert found["parameters"] > 100 and found["payloads"] >= 40
    assert found["commands"] == len(entry_points()) * len(TEXTS)
    assert found["executions"] == found["changed"] == 0


def test_every_parameter_meets_every_payload():
    met = {(name, key, text) for name, values in cases(False) for key, text in values.items()}
    assert len(met) == sum(map(len, entry_points().values())) * len(TEXTS)


def test_the_payloads_are_code_where_a_placeholder_is_quoted(tmp_path):
    """As MLproject must not have them."""
    sprung = 0
    for text in TEXTS:
        for quoted in (f"'{text}'", f'"{text}"', text):
            subprocess.run(
                ["bash", "-c", f"echo {quoted}"], cwd=tmp_path, capture_output=True, check=False
            )
            made = [*tmp_path.iterdir()]
            sprung += bool(made)
            for path in made:
                path.unlink()
    assert sprung > 20


def test_unknown_parameters_are_no_code_either(tmp_path):
    odd = {f"x;touch {SENTINEL}": f"$(touch {SENTINEL})"}
    values = {**entry_points()["report"], **odd}
    (argv,) = run_all([("report", values)], tmp_path)
    assert argv[-2:] == [f"--x;touch {SENTINEL}", f"$(touch {SENTINEL})"]
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_null_byte_starts_nothing(tmp_path):
    with pytest.raises(ValueError, match="null byte"):
        run_all([("report", {"run": f"\0touch {SENTINEL}", "output": ""})], tmp_path)


def test_what_is_expected_is_what_click_takes():
    assert expected("report", {"run": "-x", "output": ""}) == [
        "-m", "pti_pipeline", "report", "--run=-x", "--output=",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("images", "preview"), PAIRS)
def test_mlflow_run_itself(tmp_path, images, preview):
    assert run_really(images, preview, tmp_path / "place")
