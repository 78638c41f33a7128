"""Reads a compiled kernel: identity, registers, spills, shared memory, access widths. No driver needed."""

import hashlib
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from triton import knobs

from tuner.records import Binary, FrozenMapping

# One SASS line: /*offset*/ instruction ; /* encoding */
_SASS_LINE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?P<name>[A-Z][A-Z0-9_.]*)", re.MULTILINE)
_SASS_ACCESS = re.compile(r"^(?P<kind>LDG|STG|LDGSTS|LD|ST)\.E")
_SASS_WIDTH = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+)")

_AMD_ACCESS = re.compile(
    r"^\s+(?:global|buffer|flat)_(?P<kind>load|store)_(?:d16_)?(?:hi_)?"
    r"(?P<width>dwordx[234]|dword|b(?:128|96|64|32|16|8)|[us]?short|[us]?byte|[ui](?:8|16))\b",
    re.MULTILINE,
)
_AMD_WIDTH = {
    "dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4,
    "b128": 16, "b96": 12, "b64": 8, "b32": 4, "b16": 2, "b8": 1,
    "short": 2, "ushort": 2, "sshort": 2, "byte": 1, "ubyte": 1, "sbyte": 1,
    "u8": 1, "i8": 1, "u16": 2, "i16": 2,
}  # fmt: skip
_AMD_NUMBER = r"\.{name}:\s*(\d+)"

# Shapes of one compile key give the same cubin, mostly soon after each other; a listing may have 300 KB.
_LISTINGS = 64


def inspect(compiled: Any, specialization_key: str, compile_s: float) -> Binary:
    """What is in a `CompiledKernel`, for CUDA from its cubin and for HIP from its assembly."""
    if "cubin" in compiled.asm:
        return _inspect_cuda(compiled, specialization_key, compile_s)
    return _inspect_hip(compiled, specialization_key, compile_s)


def _inspect_cuda(compiled: Any, specialization_key: str, compile_s: float) -> Binary:
    listing = _listing(compiled.asm["cubin"])
    resources = _RESOURCES.search(listing)
    if resources is None:
        raise ValueError(f"cuobjdump printed no resource usage:\n{listing[:2000]}")
    registers, stack_bytes = int(resources[1]), int(resources[2])
    # The encodings name the code: neither the function's name nor debug info is in them.
    code = "\n".join(re.findall(r"/\* 0x[0-9a-f]+ \*/", listing))
    loads: Counter[str] = Counter()
    stores: Counter[str] = Counter()
    instructions = 0
    for line in _SASS_LINE.finditer(listing):
        name = line["name"]
        instructions += name != "NOP"
        access = _SASS_ACCESS.match(name)
        if access:
            width = next((_SASS_WIDTH[part] for part in name.split(".") if part in _SASS_WIDTH), 4)
            (stores if access["kind"] in ("STG", "ST") else loads)[str(width)] += 1
    return Binary(
        digest=_digest(code, compiled.metadata),
        specialization_key=specialization_key,
        registers=registers,
        spills=stack_bytes // 4,
        shared_bytes=compiled.metadata.shared,
        instructions=instructions,
        load_bytes=FrozenMapping(loads),
        store_bytes=FrozenMapping(stores),
        compile_s=compile_s,
    )


@lru_cache(maxsize=_LISTINGS)
def _listing(cubin: bytes) -> str:
    """What cuobjdump prints of a cubin: its resource usage and its instructions."""
    tool, flags = knobs.nvidia.cuobjdump.path, ("-res-usage", "-sass")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = [subprocess.run([tool, flag, file.name], capture_output=True, text=True) for flag in flags]
    for done in run:
        if done.returncode:
            raise ValueError(f"cuobjdump failed: {done.stderr.strip()}")
    return run[0].stdout + run[0].stderr + run[1].stdout


def _inspect_hip(compiled: Any, specialization_key: str, compile_s: float) -> Binary:
    text = compiled.asm["amdgcn"]
    body = [line.split(";")[0].rstrip() for line in text.splitlines()]
    code = [line for line in body if re.match(r"^\s+[a-z]\w+", line)]
    loads: Counter[str] = Counter()
    stores: Counter[str] = Counter()
    for access in _AMD_ACCESS.finditer(text):
        (stores if access["kind"] == "store" else loads)[str(_AMD_WIDTH[access["width"]])] += 1
    number = {name: re.search(_AMD_NUMBER.format(name=name), text) for name in ("vgpr_count", "vgpr_spill_count")}
    return Binary(
        digest=_digest("\n".join(code), compiled.metadata),
        specialization_key=specialization_key,
        registers=int(number["vgpr_count"][1]) if number["vgpr_count"] else 0,
        spills=int(number["vgpr_spill_count"][1]) if number["vgpr_spill_count"] else 0,
        shared_bytes=compiled.metadata.shared,
        instructions=len(code),
        load_bytes=FrozenMapping(loads),
        store_bytes=FrozenMapping(stores),
        compile_s=compile_s,
    )


def narrower(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[int, int] | None:
    """The widest access in bytes that gets rarer and the narrowest that gets more frequent, if it is narrower.

    Both map bytes per thread to a number of instructions.
    """
    change = {int(width): after.get(width, 0) - before.get(width, 0) for width in {*before, *after}}
    lost = [width for width, count in change.items() if count < 0]
    gained = [width for width, count in change.items() if count > 0]
    return (max(lost), min(gained)) if lost and gained and min(gained) < max(lost) else None


def _digest(code: str, metadata: Any) -> str:
    """16 hex digits over the code and what the launcher adds to it."""
    launch = f"{metadata.num_warps} {metadata.num_ctas} {metadata.shared}"
    return hashlib.sha256(f"{launch}\n{code}".encode()).hexdigest()[:16]
