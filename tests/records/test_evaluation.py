"""Evaluation: a time exactly when the variant passed."""

import dataclasses

import pytest
import store_examples

from tuner.records import Evaluation, Status


@pytest.mark.parametrize("status", Status)
def test_a_time_needs_a_pass_and_a_pass_a_time(status: Status) -> None:
    passed = store_examples.evaluation(1)
    if status is Status.PASSED:
        with pytest.raises(ValueError, match="passed"):
            dataclasses.replace(passed, timing=None)
        assert passed.timing is not None
    else:
        with pytest.raises(ValueError, match=status.value):
            dataclasses.replace(passed, status=status)
        assert Evaluation(passed.variant, passed.shape, status).timing is None
