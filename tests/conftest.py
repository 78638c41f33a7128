"""What tests of several folders share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tuner.processes import WorkerPool


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[WorkerPool]":
    """One process in which Triton kernels are interpreted; most tests of them take less than its start."""
    from tuner.processes import WorkerPool
    from tuner.verify.interpreter import INTERPRETER_ENVIRONMENT

    cache = tmp_path_factory.mktemp("variants")
    pool = WorkerPool(1, {**INTERPRETER_ENVIRONMENT, "TUNER_CACHE": str(cache)})
    yield pool  # not as a context, in which Ctrl-C would act on tests only where they wait for it
    pool.kill()
