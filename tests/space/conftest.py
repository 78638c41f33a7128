from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.errors import SpaceError
from tuner.space import SearchSpace, load_space

GOOD = """\
kernel: quantize
implementations:
  tile:
    parameters:
      BLOCK_TOKENS: [1, 2, 4, 8]
      BLOCK_HEADS: [1, 2, 4, 8]
    options:
      num_warps: [1, 2, 4, 8]
      num_stages: [1, 2]
    constraints:
      - BLOCK_HEADS <= num_heads // n_groups
      - BLOCK_TOKENS * BLOCK_HEADS <= 32
  per_head:
    options: {num_warps: [1], num_stages: [1]}
specialization:
  do_not_specialize: [num_tokens, fp8_stride]
  do_not_specialize_on_alignment: [fp8_stride]
shapes:
  - {num_tokens: [1, 16], num_heads: 64, n_groups: [8, 64], layout: row}
  - {num_tokens: 16, num_heads: 64, n_groups: 8, layout: row}
objective: latency
measurement:
  l2: cold
budget:
  trials: 30
  timeout_s: 600
baseline:
  implementation: per_head
  parameters: {}
  options: {num_warps: 1, num_stages: 1}
  do_not_specialize: [num_tokens]
"""

MINIMAL = """\
kernel: quantize
implementations:
  tile: {}
shapes:
  - {num_tokens: 1}
"""


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str | bytes], SearchSpace]:
    """Writes the text to `space.yaml` and loads it."""

    def write_and_load(content: str | bytes) -> SearchSpace:
        path = tmp_path / "space.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_space(path)

    return write_and_load


@pytest.fixture
def refusal(load: Callable[[str | bytes], SearchSpace]) -> Callable[[str | bytes], str]:
    """The text of the SpaceError with which the content is refused."""

    def load_and_catch(content: str | bytes) -> str:
        with pytest.raises(SpaceError) as caught:
            load(content)
        return str(caught.value)

    return load_and_catch
