from collections.abc import Iterator

import pytest

from tuner.processes import WorkerPool
from tuner.verify.interpreter import INTERPRETER_ENVIRONMENT


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerPool]:
    """One process in which Triton kernels are interpreted."""
    cache = tmp_path_factory.mktemp("variants")
    with WorkerPool(1, {**INTERPRETER_ENVIRONMENT, "TUNER_CACHE": str(cache)}) as pool:
        yield pool
