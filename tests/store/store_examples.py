"""Records to store: fixed ones by number, and hypothesis strategies for arbitrary ones."""

import dataclasses
import hashlib
from typing import Any

from hypothesis import strategies as st

from tuner.records import (
    KNOWN_TARGETS,
    Agreement,
    Binary,
    Conditions,
    Config,
    Environment,
    Evaluation,
    Evidence,
    FrozenMapping,
    Shape,
    SpecializationSet,
    Speedup,
    Status,
    Target,
    Timing,
    Variant,
    Winner,
)

ENVIRONMENT = Environment(
    Target("cuda", "90"),
    Evidence.MEASURED,
    "NVIDIA H100 80GB HBM3",
    torch="2.13.0",
    triton="3.6.0",
    driver="580.65",
    ptxas="12.8",
    l2="cold",
)
SOURCE = "0123456789abcdef"


def variant(number: int, kernel: str = "scale") -> Variant:
    config = Config("rows", FrozenMapping(BLOCK=16 * (number + 1)), FrozenMapping(num_warps=4, num_stages=2))
    return Variant(kernel, config, SpecializationSet.of(["num_tokens"], ["stride"]))


def shape(tokens: int) -> Shape:
    return Shape(num_tokens=tokens, hidden=4096, dtype="bf16")


def evaluation(number: int, tokens: int = 64, kernel: str = "scale") -> Evaluation:
    """A passed evaluation with every field set; each number is another variant, two share a binary."""
    binary = Binary(
        f"binary{number // 2}",
        "*bf16:16,i32",
        registers=40 + number // 2,
        spills=2,
        shared_bytes=16384,
        instructions=900,
        load_bytes=FrozenMapping({"16": 4, "1": 2}),
        store_bytes=FrozenMapping({"16": 4}),
        compile_s=0.25 + number,
    )
    return Evaluation(
        variant(number, kernel),
        shape(tokens),
        Status.PASSED,
        f"log {number}",
        binary,
        Agreement(4096, 0, 3, "all within 1e-3"),
        timing(10.1 + number),
        Conditions(1755, 61, ("sw power cap", "hw slowdown")),
    )


def timing(median_us: float) -> Timing:
    return Timing(median_us, median_us - 0.1, median_us + 0.3, 3, (median_us - 0.1, median_us, median_us + 0.3))


def winner(number: int, tokens: int = 64, kernel: str = "scale", environment: Environment = ENVIRONMENT) -> Winner:
    return Winner(
        variant(number, kernel),
        variant(0, kernel),
        shape(tokens),
        environment,
        SOURCE,
        timing(10.1),
        timing(12.7),
        Speedup(1.26, 1.2, 1.31),
        compiles=3,
        reason=f"beat the baseline, choice {number}",
    )


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
prose = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)
names = st.from_regex(r"[A-Za-z_]\w{0,12}", fullmatch=True)
counts = st.integers(0, 2**62)
times = st.floats(0, 1e12, allow_nan=False)
ratios = st.floats(1e-6, 1e6)
numbers = st.dictionaries(names, st.integers(-(2**62), 2**62), max_size=5).map(FrozenMapping)
widths = st.dictionaries(st.sampled_from(["1", "2", "4", "8", "16"]), counts).map(FrozenMapping)


def every(record: type, **strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Records with every field drawn; a field that is new to the record fails here and not in silence."""
    assert set(strategies) == {field.name for field in dataclasses.fields(record)}, record
    return st.builds(record, **strategies)


shapes = st.dictionaries(names, st.one_of(counts, words), min_size=1, max_size=5).map(Shape)
environments = every(
    Environment,
    target=st.sampled_from(KNOWN_TARGETS).map(Target.parse),
    evidence=st.sampled_from(Evidence),
    device=words,
    torch=words,
    triton=words,
    driver=words,
    ptxas=words,
    l2=words,
    protocol=st.integers(1, 99),
)
configs = every(Config, implementation=names, parameters=numbers, options=numbers)
specializations = st.builds(SpecializationSet.of, st.lists(names, max_size=4), st.lists(names, max_size=4))
variants = every(Variant, kernel=names, config=configs, specialization=specializations)
samples = st.lists(times, max_size=40).map(tuple)
timings = every(Timing, median_us=times, low_us=times, high_us=times, count=counts, samples_us=samples)
agreements = every(Agreement, elements=counts, mismatched=counts, undecided=counts, detail=prose)
conditions = every(
    Conditions,
    sm_clock_mhz=counts,
    temperature_c=st.integers(-(2**62), 2**62),
    throttle=st.lists(words, max_size=3).map(tuple),
)
speedups = every(Speedup, median=ratios, low=ratios, high=ratios)
binaries = every(
    Binary,
    digest=st.just(""),
    specialization_key=prose,
    registers=counts,
    spills=counts,
    shared_bytes=counts,
    instructions=counts,
    load_bytes=widths,
    store_bytes=widths,
    compile_s=st.floats(0, 1e6),
).map(lambda binary: dataclasses.replace(binary, digest=_content_digest(binary)))


def _content_digest(binary: Binary) -> str:
    """Follows from the content, as the digest of real code does."""
    content = dataclasses.replace(binary, specialization_key="", compile_s=0.0)
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _evaluations(status: Status) -> st.SearchStrategy[Evaluation]:
    return every(
        Evaluation,
        variant=variants,
        shape=shapes,
        status=st.just(status),
        log=prose,
        binary=st.none() | binaries,
        agreement=st.none() | agreements,
        timing=timings if status is Status.PASSED else st.none(),
        conditions=st.none() | conditions,
    )


evaluations = st.sampled_from(Status).flatmap(_evaluations)
winners = every(
    Winner,
    variant=variants,
    baseline=variants,
    shape=shapes,
    environment=environments,
    source_digest=words,
    timing=timings,
    baseline_timing=timings,
    speedup=speedups,
    compiles=counts,
    reason=prose,
)
arguments = st.dictionaries(names, st.none() | st.booleans() | counts | words | st.lists(words, max_size=3), max_size=5)
