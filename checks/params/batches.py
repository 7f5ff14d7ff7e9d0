"""Whether a batch fits the memory that the run will have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import machine
from checks.model import CheckReport, CheckSkip, Finding, Severity
from checks.params.samples import SampleUnknown, sample_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from checks.context import Context
    from checks.params.declaration import Batch
    from checks.params.values import Value

RULE = "params.batch_memory"


def check(batch: Batch, found: Mapping[str, Value], subject: str, context: Context) -> CheckReport:
    """Compare the bytes of a batch with the memory that is free for it."""
    value = found.get(batch.parameter)
    count = value.value if value is not None else None
    if value is None or isinstance(count, bool) or not isinstance(count, (int, float)):
        message = f"{batch.parameter} is not set to a number, so a batch cannot be weighed"
        finding = Finding(
            RULE,
            Severity.ERROR,
            subject,
            message,
            column=batch.parameter,
            hint=f"set {batch.parameter}",
        )
        return CheckReport(((RULE, subject),), (finding,))
    try:
        each = batch.sample_bytes or sample_bytes(context.resolve(batch.data))
        total, where = _memory(batch)
    except (SampleUnknown, machine.GpuUnavailable) as error:
        return CheckReport(skipped=(CheckSkip(RULE, str(error), error.fix),))
    wanted, limit = count * each * batch.copies, total * batch.share
    findings: tuple[Finding, ...] = ()
    if not wanted <= limit:
        largest = int(limit // (each * batch.copies)) if each else 0
        message = (
            f"{batch.parameter} = {count:g} (from {value.origin}) takes "
            f"{wanted / 1e9:.2f} GB a batch, more than {100 * batch.share:.0f} % of the "
            f"{total / 1e9:.1f} GB of {where}"
        )
        findings = (
            Finding(
                RULE,
                Severity.ERROR,
                subject,
                message,
                column=batch.parameter,
                value=int(wanted),
                limit=int(limit),
                hint=f"set {batch.parameter} to at most {largest:,}",
            ),
        )
    return CheckReport(((RULE, subject),), findings)


def _memory(batch: Batch) -> tuple[int, str]:
    if batch.memory == "machine":
        memory = machine.read_memory()
        return memory.total_bytes, "memory"
    gpus = machine.read_gpus()
    if not gpus:
        raise machine.GpuUnavailable("there is no GPU", 'set memory = "machine"')
    smallest = min(gpus, key=lambda gpu: gpu.total_bytes)
    return smallest.total_bytes, f"GPU {smallest.index}"
