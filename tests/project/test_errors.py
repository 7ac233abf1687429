import pickle

import pytest

from pti_pipeline.errors import ModelError, UsageError


@pytest.mark.parametrize("kind", [ModelError, UsageError])
def test_a_workers_error_arrives_as_it_was(kind):
    error = kind("E405", "this LoRA does not fit", "use the base that it was trained on")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (as a pool of processes sends it)
    assert type(again) is kind and str(again) == str(error)
    assert (again.code, again.hint, again.exit_code) == (error.code, error.hint, error.exit_code)
