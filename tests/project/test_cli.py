import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pti_pipeline.cli import main
from pti_pipeline.tracking.find import find_runs
from pti_pipeline.weights import read_weights

HEAVY = ("torch", "mlflow", "diffusers", "transformers", "peft", "numpy", "skimage", "matplotlib")


def invoke(*words):
    return CliRunner().invoke(main, words)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from pti_pipeline.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_explains_itself_and_shows_defaults(name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_every_option_takes_a_value_and_has_help():
    for command in main.commands.values():
        for option in command.params:
            assert option.help, option.name
            assert not option.is_flag, option.name


def no_runs(folder):
    from pti_pipeline.tracking.find import find_runs

    return not (folder / "mlflow.db").exists() or find_runs() == []


def one_line(result, code, exit_code):
    lines = [line for line in result.output.splitlines() if line.startswith("error[")]
    assert result.exit_code == exit_code, result.output
    assert len(lines) == 1 and lines[0].startswith(f"error[{code}]: ") and "Hint: " in lines[0]
    assert "Traceback" not in result.output


@pytest.fixture
def empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture
def broken(tmp_path):
    (tmp_path / "broken").mkdir()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "broken" / "a.png")
    (tmp_path / "broken" / "b.png").write_text("no picture")
    return tmp_path / "broken"


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["invert", "--images={empty}"], "E301", 3),
        (["sweep", "--lrs="], "E201", 2),
        (["sweep", "--lrs=0.1,0.01,0.1"], "E202", 2),
        (["sweep", "--seeds=1,1"], "E202", 2),
        (["sweep", "--vary=rank:4,8"], "E218", 2),
        (["sweep", "--vary=vectors:"], "E218", 2),
        (["sweep", "--vary=vectors:1,two"], "E218", 2),
        (["sweep", "--vary=vectors:0,1"], "E202", 2),
        (["invert", "--images={broken}"], "E302", 3),
        (["invert", "--study=" + "0" * 32], "E210", 2),
        (["sweep", "--lrs=0.1", "--study=x"], "E210", 2),
        (["generate", "--output={broken}/b.png"], "E263", 2),
        (["invert", "--images=nowhere"], "E301", 3),
        (["invert", "--background=0.5"], "E311", 3),
        (["sweep", "--vary=background:0.5,1"], "E311", 3),
        (["main", "--background=0.5"], "E311", 3),
        (["main", "--timestep-range=1,0"], "E202", 2),
        (["main", "--clip-model={empty}"], "E413", 4),
        (["invert", "--templates=nowhere"], "E321", 3),
        (["sweep", "--preview=nowhere"], "E321", 3),
        (["main", "--preview=nowhere"], "E321", 3),
        (["main", "--preview-seeds=1,1"], "E202", 2),
        (["sweep", "--timestep-range=0"], "E202", 2),
        (["invert", "--lr=abc"], "E201", 2),
        (["invert", "--lr=0"], "E201", 2),
        (["sweep", "--lrs=0.1,x"], "E201", 2),
        (["main", "--tuning-lrs=,"], "E201", 2),
        (["main", "--images={empty}"], "E301", 3),
        (["sweep", "--images={broken}"], "E302", 3),
        (["sweep", "--stage=finetune", "--pivot=" + "0" * 32], "E210", 2),
        (["invert", "--token=rabbit"], "E204", 2),
        (["invert", "--token=two words"], "E203", 2),
        (["invert", "--initializer=hippopotamus"], "E205", 2),
        (["invert", "--base={empty}"], "E401", 4),
        (["finetune", "--pivot=" + "0" * 32], "E210", 2),
        (["finetune", "--pivot=nonsense"], "E210", 2),
        (["finetune", "--pivot=x", "--regularizer=localty"], "E232", 2),
        (["finetune", "--pivot=x", "--regularizer=weight-ball"], "E232", 2),
        (["finetune", "--pivot=x", "--reg-weight=-1"], "E202", 2),
        (["finetune", "--pivot=x", "--kappa=0"], "E202", 2),
        (["sweep", "--stage=finetune", "--pivot=x", "--vary=regularizer:none,lora"], "E232", 2),
        (["evaluate", "--run=" + "0" * 32], "E210", 2),
        (["report", "--run=" + "0" * 32], "E210", 2),
        (["generate", "--model=nothing"], "E216", 2),
        (["ui"], "E233", 2),
        (["ui", "--run=" + "0" * 32], "E210", 2),
        (["generate", "--model=models:/nothing@champion"], "E408", 4),
        (["generate", "--model=models:/nothing@champion", "--weights=1,2"], "E253", 2),
        (["generate", "--weights=1,inf"], "E253", 2),
        (["generate", "--model=" + "0" * 32], "E210", 2),
        (["register", "--run=" + "0" * 32], "E210", 2),
        (["world", "render", "--factors=species=dog"], "E217", 2),
        (["world", "render", "--factors=specie=cat"], "E217", 2),
        (["world", "render", "--character=nobody"], "E217", 2),
        (["world", "render", "--constant=pose"], "E217", 2),
        (["world", "render", "--twins=color"], "E217", 2),
        (["world", "check", "--folder={empty}"], "E409", 4),
        (["world", "train", "--parts=nothing", "--folder={empty}"], "E206", 2),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_no_run(
    store, empty, broken, words, code, exit_code
):
    filled = [w.replace("{empty}", str(empty)).replace("{broken}", str(broken)) for w in words]
    one_line(invoke(*filled), code, exit_code)
    assert no_runs(store)


def test_ways_to_update_reach_the_trainings(store, tiny_folder, pictures):
    usual = [f"--base={tiny_folder}", "--device=cpu", "--steps=3", "--batch-size=2", "--probes=0"]
    usual += ["--optimizer=adam-8bit", "--ema=0.5", "--micro-batch=1", "--checkpointing=yes"]
    subject = [f"--images={pictures}", "--token=<c>", "--initializer=cat"]
    done = invoke("invert", *usual, *subject, "--norm=vocabulary")
    assert done.exit_code == 0, done.output
    (inversion,) = find_runs(step="invert")
    done = invoke("finetune", *usual, f"--pivot={inversion.id}", "--weight-decay=0.1")
    assert done.exit_code == 0, done.output
    (tuning,) = find_runs(step="finetune")
    told = {"optimizer": "adam-8bit", "ema": "0.5", "micro_batch": "1", "checkpointing": "True"}
    assert told.items() <= inversion.params.items() and told.items() <= tuning.params.items()
    assert inversion.params["norm"] == "vocabulary" and tuning.params["weight_decay"] == "0.1"
    assert inversion.tags["pti.micro_batch"] == tuning.tags["pti.micro_batch"] == "1"


@pytest.mark.parametrize(
    "words",
    [
        ["invert", "--steps=0"],
        ["invert", "--device=tpu"],
        ["finetune"],
        ["evaluate", "--run=x", "--samples=many"],
        ["sweep", "--stage=finetune"],
        ["invert", "--lr=0.1,0.2"],
        ["ui", "--run=x", "--study=x"],
        ["ui", "--port=0"],
        ["nothing"],
    ],
)
def test_usage_errors_exit_with_2(store, words):
    result = invoke(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert no_runs(store)


def test_what_a_lora_adapts_reaches_trainings_evaluations_and_exports(store, tiny_folder, pictures):
    usual = [f"--base={tiny_folder}", "--device=cpu", "--steps=2", "--batch-size=1", "--probes=0"]
    subject = [f"--images={pictures}", "--token=<c>", "--initializer=cat", "--sample-every=0"]
    assert invoke("invert", *usual, *subject).exit_code == 0
    (inversion,) = find_runs(step="invert")
    tuning = ["--sample-every=0", f"--pivot={inversion.id}", "--rslora=yes"]
    done = invoke("finetune", *usual, *tuning, "--targets=to_q,net.2")
    assert done.exit_code == 0, done.output
    (run,) = find_runs(step="finetune")
    assert (run.params["targets"], run.params["rslora"]) == ("to_q,net.2", "yes")
    one_line(invoke("finetune", *usual, *tuning, "--targets=to_q,ff"), "E207", 2)
    done = invoke("export", f"--model={run.id}", "--form=diffusers,kohya", "--output=out")
    assert done.exit_code == 0, done.output
    weights, header = read_weights(store / "out" / "c-lora.safetensors")
    assert any("ff_net_2" in name for name in weights)
    assert {float(t) for n, t in weights.items() if n.endswith("alpha")} == {4 * 4**0.5}
    assert header["ss_network_alpha"] == "8"
