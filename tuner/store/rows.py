"""Records to column values, and rows back to records."""

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from tuner.errors import StoreError, UnknownNameError
from tuner.records import (
    Agreement,
    Binary,
    Conditions,
    Environment,
    Evaluation,
    Evidence,
    FrozenMapping,
    Shape,
    Speedup,
    Status,
    Target,
    Timing,
    Variant,
    Winner,
)
from tuner.store.run_record import RunRecord
from tuner.store.schema import BinaryRow, EnvironmentRow, RunRow, VariantRow, WinnerRow

Values = dict[str, Any]


def environment_values(environment: Environment) -> Values:
    return {
        "digest": environment.digest,
        "target": str(environment.target),
        "evidence": environment.evidence.value,
        "device": environment.device,
        "torch": environment.torch,
        "triton": environment.triton,
        "driver": environment.driver,
        "ptxas": environment.ptxas,
        "l2": environment.l2,
        "protocol": environment.protocol,
    }


def variant_values(variant: Variant) -> Values:
    return {"digest": variant.digest, **variant.to_json()}


def binary_values(binary: Binary, target: Target) -> Values:
    return {
        "digest": binary.digest,
        "target": str(target),
        "registers": binary.registers,
        "spills": binary.spills,
        "shared_bytes": binary.shared_bytes,
        "instructions": binary.instructions,
        "load_bytes": dict(binary.load_bytes),
        "store_bytes": dict(binary.store_bytes),
    }


def shape_values(shape: Shape) -> Values:
    return {"shape_key": shape.canonical, "shape": dict(shape)}


def timing_values(timing: Timing, prefix: str = "") -> Values:
    """StoreError for a time that is not finite: no database stores it in the same way."""
    numbers = [timing.median_us, timing.low_us, timing.high_us, *timing.samples_us]
    strange = [number for number in numbers if not math.isfinite(number)]
    if strange:
        raise StoreError(
            f"A time of {strange[0]} us cannot be stored.", hint="Measure again; this is a fault in tuner."
        )
    return {
        f"{prefix}median_us": float(timing.median_us),
        f"{prefix}low_us": float(timing.low_us),
        f"{prefix}high_us": float(timing.high_us),
        f"{prefix}sample_count": timing.count,
        f"{prefix}samples_us": [float(sample) for sample in timing.samples_us],
    }


def evaluation_values(evaluation: Evaluation) -> Values:
    """All columns that belong to the evaluation itself; the references are the store's."""
    values: Values = {"status": evaluation.status.value, "log": evaluation.log, **shape_values(evaluation.shape)}
    if evaluation.binary is not None:
        values["specialization_key"] = evaluation.binary.specialization_key
        values["compile_s"] = float(evaluation.binary.compile_s)
    if evaluation.agreement is not None:
        values["elements"] = evaluation.agreement.elements
        values["mismatched"] = evaluation.agreement.mismatched
        values["undecided"] = evaluation.agreement.undecided
        values["agreement_detail"] = evaluation.agreement.detail
    if evaluation.timing is not None:
        values.update(timing_values(evaluation.timing))
    if evaluation.conditions is not None:
        values["sm_clock_mhz"] = evaluation.conditions.sm_clock_mhz
        values["temperature_c"] = evaluation.conditions.temperature_c
        values["throttle"] = list(evaluation.conditions.throttle)
    return values


def winner_values(winner: Winner) -> Values:
    """All columns that belong to the winner itself; the references are the store's."""
    return {
        "kernel": winner.variant.kernel,
        "source_digest": winner.source_digest,
        **shape_values(winner.shape),
        **timing_values(winner.timing),
        **timing_values(winner.baseline_timing, "baseline_"),
        "speedup": float(winner.speedup.median),
        "speedup_low": float(winner.speedup.low),
        "speedup_high": float(winner.speedup.high),
        "compiles": winner.compiles,
        "reason": winner.reason,
    }


def environment_of(row: EnvironmentRow) -> Environment:
    backend, arch = row.target.split(":", 1)
    return Environment(
        Target(backend, arch),
        Evidence(row.evidence),
        row.device,
        torch=row.torch,
        triton=row.triton,
        driver=row.driver,
        ptxas=row.ptxas,
        l2=row.l2,
        protocol=row.protocol,
    )


def variant_of(row: VariantRow) -> Variant:
    return Variant.from_json(
        {
            "kernel": row.kernel,
            "implementation": row.implementation,
            "parameters": row.parameters,
            "options": row.options,
            "do_not_specialize": row.do_not_specialize,
            "do_not_specialize_on_alignment": row.do_not_specialize_on_alignment,
        }
    )


def evaluation_of(row: Row[Any], variants: Mapping[int, Variant], binaries: Mapping[int, BinaryRow]) -> Evaluation:
    """A row of the evaluation table, with the variants and binaries that such rows name.

    StoreError for a status that this version does not know; ValueError for a row that contradicts itself.
    """
    try:
        status = Status(row.status)
    except ValueError:
        problem = UnknownNameError("status", row.status, [status.value for status in Status])
        hint = "The store was edited by hand or written by a newer tuner."
        raise StoreError(f"Evaluation {row.id}: {problem.message}", hint=hint) from problem
    return Evaluation(
        variants[row.variant_id],
        Shape(row.shape),
        status,
        row.log,
        binary=_binary_of(row, binaries),
        agreement=_agreement_of(row),
        timing=_timing_of(row),
        conditions=_conditions_of(row),
    )


def _binary_of(row: Row[Any], binaries: Mapping[int, BinaryRow]) -> Binary | None:
    if row.binary_id is None:
        return None
    binary = binaries[row.binary_id]
    return Binary(
        binary.digest,
        row.specialization_key,
        registers=binary.registers,
        spills=binary.spills,
        shared_bytes=binary.shared_bytes,
        instructions=binary.instructions,
        load_bytes=FrozenMapping(binary.load_bytes),
        store_bytes=FrozenMapping(binary.store_bytes),
        compile_s=row.compile_s,
    )


def _agreement_of(row: Row[Any]) -> Agreement | None:
    if row.elements is None:
        return None
    return Agreement(row.elements, row.mismatched, row.undecided, row.agreement_detail)


def _timing_of(row: Row[Any]) -> Timing | None:
    if row.median_us is None:
        return None
    return Timing(row.median_us, row.low_us, row.high_us, row.sample_count, tuple(row.samples_us))


def _conditions_of(row: Row[Any]) -> Conditions | None:
    if row.sm_clock_mhz is None:
        return None
    return Conditions(row.sm_clock_mhz, row.temperature_c, tuple(row.throttle))


def winner_of(row: WinnerRow) -> Winner:
    return Winner(
        variant_of(row.variant),
        variant_of(row.baseline),
        Shape(row.shape),
        environment_of(row.environment),
        row.source_digest,
        timing=Timing(row.median_us, row.low_us, row.high_us, row.sample_count, tuple(row.samples_us)),
        baseline_timing=Timing(
            row.baseline_median_us,
            row.baseline_low_us,
            row.baseline_high_us,
            row.baseline_sample_count,
            tuple(row.baseline_samples_us),
        ),
        speedup=Speedup(row.speedup, row.speedup_low, row.speedup_high),
        compiles=row.compiles,
        reason=row.reason,
    )


def run_of(row: RunRow, evaluations: int) -> RunRecord:
    return RunRecord(
        row.id,
        row.kernel,
        row.source_digest,
        environment_of(row.environment),
        row.seed,
        row.arguments,
        row.started_at,
        row.finished_at,
        evaluations,
    )
