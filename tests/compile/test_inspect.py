"""What is read of machine code, from a listing that is written here."""

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tuner.compile import inspect as module
from tuner.compile.inspect import inspect

METADATA = SimpleNamespace(num_warps=4, num_ctas=1, shared=0)
USAGE = " Function double:\n  REG:16 STACK:8 SHARED:0\n"
LISTING = """
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;      /* 0x0000000402047981 */
        /*0010*/              @!P0 STG.E.64 desc[UR4][R2.64], R4 ;       /* 0x0000000402008986 */
        /*0020*/                   NOP ;                                 /* 0x0000000000007918 */
"""


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Answers for cuobjdump, and notes how it was run."""
    found: list[list[str]] = []

    def run(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        found.append(command)
        return subprocess.CompletedProcess(command, 0, USAGE if "-res-usage" in command else LISTING, "")

    nvidia = SimpleNamespace(cuobjdump=SimpleNamespace(path="tool"))
    monkeypatch.setattr(module, "knobs", SimpleNamespace(nvidia=nvidia))
    monkeypatch.setattr(module.subprocess, "run", run)
    module._listing.cache_clear()
    yield found
    module._listing.cache_clear()


def compiled(cubin: bytes) -> SimpleNamespace:
    return SimpleNamespace(asm={"cubin": cubin}, metadata=METADATA)


def test_a_listing_gives_resources_and_accesses(runs: list[list[str]]) -> None:
    found = inspect(compiled(b"one"), "*fp32", 0.5)
    assert (found.registers, found.spills, found.instructions, found.compile_s) == (16, 2, 2, 0.5)
    assert (found.load_bytes, found.store_bytes) == ({"16": 1}, {"8": 1})
    assert [command[:2] for command in runs] == [["tool", "-res-usage"], ["tool", "-sass"]]


def test_a_cubin_that_comes_again_is_not_listed_again(runs: list[list[str]]) -> None:
    first, again = (inspect(compiled(b"one"), key, 0.0) for key in ("*fp32 3", "*fp32 4"))
    assert (first.digest, first.registers, again.specialization_key) == (again.digest, again.registers, "*fp32 4")
    assert len(runs) == 2
    inspect(compiled(b"two"), "*fp32", 0.0)
    assert len(runs) == 4
