import math

import pytest

from pti_pipeline.errors import UsageError
from pti_pipeline.settings import FinetuneSettings, InvertSettings, SampleSettings, WatchSettings
from pti_pipeline.values import experiments, parse_learning_rates, parse_seeds, parse_vary


@pytest.mark.parametrize("text", ["abc", "", "0.1,,0.2", "0", "-1", "nan", "inf", "0.1;touch X"])
def test_bad_learning_rates_are_named(text):
    with pytest.raises(UsageError) as caught:
        parse_learning_rates(text)
    assert caught.value.code == "E201"
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_seeds():
    assert parse_seeds("0,7") == (0, 7)
    with pytest.raises(UsageError):
        parse_seeds("0.5")


@pytest.mark.parametrize("text", ["at_distance:stop,project", "stop_at_leak:0,1", "pivot:a,b"])
def test_settings_that_are_no_numbers_are_not_varied(text):
    with pytest.raises(UsageError, match="varies nothing"):
        parse_vary(text, FinetuneSettings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: InvertSettings(steps=0),
        lambda: InvertSettings(batch_size=0),
        lambda: InvertSettings(vectors=0),
        lambda: InvertSettings(lr=math.inf),
        lambda: FinetuneSettings(rank=0),
        lambda: FinetuneSettings(alpha=math.nan),
        lambda: SampleSettings(guidance=0.5),
        lambda: SampleSettings(steps=0),
        lambda: SampleSettings(guidance=math.nan),
        lambda: SampleSettings(guidance=101),
        lambda: InvertSettings(steps=10**9),
        lambda: InvertSettings(vectors=1000),
        lambda: InvertSettings(seed=-1),
        lambda: InvertSettings(seed=2**32),
        lambda: FinetuneSettings(rank=10_000),
        lambda: FinetuneSettings(reg_bank=10**7),
        lambda: FinetuneSettings(reg_weight=-1),
        lambda: FinetuneSettings(kappa=0),
        lambda: WatchSettings(probes=-1),
        lambda: WatchSettings(sample_every=10**9),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(UsageError):
        make()


def test_a_sweep_has_at_most_a_thousand_experiments():
    lrs = parse_learning_rates(",".join(f"{i}e-6" for i in range(1, 501)))
    assert len(experiments(lrs, (0, 1), ("", ()), InvertSettings())) == 1000
    with pytest.raises(UsageError, match=r"E202.*1500 experiments"):
        experiments(lrs, (0, 1, 2), ("", ()), InvertSettings())
    with pytest.raises(UsageError, match=r"E202.*1001 values"):
        parse_seeds(",".join(map(str, range(1001))))
