import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.processes import WorkerPool
from tuner.verify.interpreter import INTERPRETER_ENVIRONMENT

sys.path.append(str(Path(__file__).parents[1] / "examples"))  # kernel_examples: a kernel to try things on


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerPool]:
    """One process in which Triton kernels are interpreted."""
    cache = tmp_path_factory.mktemp("variants")
    with WorkerPool(1, {**INTERPRETER_ENVIRONMENT, "TUNER_CACHE": str(cache)}) as pool:
        yield pool
