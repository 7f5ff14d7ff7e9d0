"""The machine: memory, disk and GPU memory, before a run and while it goes on.

Memory is that of the control group where one sets a limit (cgroup v2 `memory.max`, v1
`memory.limit_in_bytes`, at any level above this process), else that of the machine. The page
cache that can be dropped at once does not count as used.
"""

from __future__ import annotations

import importlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from checks.model import CheckReport, CheckSkip, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from checks.context import Context
    from checks.tables import Table

_UNLIMITED = 1 << 60
_CGROUP_ROOT = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """What the machine has to have left.

    Attributes:
        memory: Largest share of the memory in use.
        gpu_memory: Largest share of any GPU's memory in use; None leaves GPUs alone.
        disk_free: Smallest free space where the project lies, in bytes.
        severity: What a finding weighs.
    """

    memory: float = 0.80
    gpu_memory: float | None = None
    disk_free: int = 0
    severity: Severity = Severity.ERROR

    @classmethod
    def from_table(cls, table: Table) -> MachineCheck:
        """Return the declaration in a table of the configuration.

        Raises:
            DeclarationError: A key is unknown or of the wrong type.
        """
        declaration = cls(
            memory=table.share("memory", 0.80),
            gpu_memory=table.share("gpu_memory", 0.9) if "gpu_memory" in table.values else None,
            disk_free=table.size("disk_free", 0),
            severity=Severity(table.choice("severity", ("error", "warning"), "error")),
        )
        table.get("gpu_memory", float, 0.0)
        table.finish()
        return declaration


DEFAULT = MachineCheck(disk_free=1_000_000_000, severity=Severity.WARNING)
"""What is held where nothing is declared: memory below 80 %, and 1 GB free where the project lies.

A warning: others may use the memory, and nobody has said yet what this run needs.
"""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory as a run can use it.

    Attributes:
        used_bytes: In use, droppable cache left out.
        total_bytes: What there is: the machine's, or the control group's limit.
        limited_by: ``machine``, or the folder of the control group.
    """

    used_bytes: int
    total_bytes: int
    limited_by: str = "machine"

    @property
    def share(self) -> float:
        """The used share, between 0 and 1."""
        return self.used_bytes / self.total_bytes if self.total_bytes else 0.0


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Memory of one GPU.

    Attributes:
        index: Its number, as `nvidia-smi` counts.
        used_bytes: In use by anybody.
        total_bytes: What it has.
    """

    index: int
    used_bytes: int
    total_bytes: int

    @property
    def share(self) -> float:
        """The used share, between 0 and 1."""
        return self.used_bytes / self.total_bytes if self.total_bytes else 0.0


@dataclass(frozen=True, slots=True)
class MachineSample:
    """The machine at one moment of a run.

    Attributes:
        at_s: When, on the monotonic clock, in seconds.
        memory: The memory that the run can use.
        tree_bytes: Resident memory of the watched processes; shared pages count in each.
        gpus: Every GPU that can be asked.
    """

    at_s: float
    memory: Memory
    tree_bytes: int
    gpus: tuple[GpuMemory, ...] = field(default=())


class GpuUnavailable(Exception):
    """No GPU can be asked; the message says why.

    Attributes:
        fix: What would mend it.
    """

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def check(declaration: MachineCheck, context: Context) -> CheckReport:
    """Compare the machine with what a run needs."""
    started = time.monotonic()
    findings: list[Finding] = []
    skipped: list[CheckSkip] = []
    memory = read_memory()
    checked = [("machine.memory", "memory")]
    figures: dict[str, Any] = {"machine.memory": memory.share}
    if memory.share >= declaration.memory:
        findings.append(_memory_finding(memory, declaration))
    if declaration.disk_free:
        checked.append(("machine.disk", "disk"))
        figures["machine.disk_free"] = free = disk_free(context.base)
        if free < declaration.disk_free:
            findings.append(_disk_finding(free, declaration, context))
    if declaration.gpu_memory is not None:
        try:
            gpus = read_gpus()
        except GpuUnavailable as error:
            skipped.append(CheckSkip("machine.gpu_memory", str(error), error.fix))
        else:
            checked += [("machine.gpu_memory", f"GPU {gpu.index}") for gpu in gpus]
            figures.update({f"machine.gpu_memory.{gpu.index}": gpu.share for gpu in gpus})
            findings += _gpu_findings(gpus, declaration)
    elapsed_s = time.monotonic() - started
    return CheckReport(tuple(checked), tuple(findings), tuple(skipped), elapsed_s, figures=figures)


def sample(pids: Iterable[int], *, gpus: bool = False) -> MachineSample:
    """Return what the machine and a run's processes use now; takes under a millisecond.

    Args:
        pids: The processes of the run; ended ones count nothing.
        gpus: Whether to ask the GPUs, too; where none can be asked there are none.
    """
    found: tuple[GpuMemory, ...] = ()
    if gpus:
        try:
            found = read_gpus()
        except GpuUnavailable:
            found = ()
    tree = sum(map(_resident_bytes, pids))
    return MachineSample(time.monotonic(), read_memory(), tree, found)


def read_memory(cgroup_root: str = _CGROUP_ROOT, proc: str = "/proc") -> Memory:
    """Return the memory of the machine, or of the control group that leaves the least.

    Args:
        cgroup_root: Where the control groups are mounted.
        proc: Where the process table is mounted.
    """
    limits = [_machine_memory(proc), *_cgroup_memory(cgroup_root, proc)]
    machine = limits[0].total_bytes
    return max((m for m in limits if m.total_bytes <= machine), key=lambda m: m.share)


def disk_free(folder: Path) -> int:
    """Return the bytes that this user may still write where a folder lies."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def read_gpus() -> tuple[GpuMemory, ...]:
    """Return the memory of all GPUs, through NVML.

    Raises:
        GpuUnavailable: The library or the driver is not there.
    """
    try:
        pynvml: Any = importlib.import_module("pynvml")  # an extra, without types
    except ImportError:
        raise GpuUnavailable(
            "the NVML library is not installed", "install it with: pip install 'mlguard[gpu]'"
        ) from None
    try:
        pynvml.nvmlInit()
        try:
            return tuple(_read_gpu(pynvml, n) for n in range(pynvml.nvmlDeviceGetCount()))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        fix = "install the NVIDIA driver, or remove `gpu_memory` from [check.machine]"
        raise GpuUnavailable(f"NVML cannot be used here: {error}", fix) from None


def _read_gpu(nvml: Any, index: int) -> GpuMemory:
    info = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index))
    return GpuMemory(index, int(info.used), int(info.total))


def _machine_memory(proc: str) -> Memory:
    try:
        with open(f"{proc}/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        total, available = (int(lines[k].split()[0]) * 1024 for k in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        import psutil  # noqa: PLC0415  # 46 ms, and only where there is no /proc

        now = psutil.virtual_memory()
        total, available = now.total, now.available
    return Memory(total - available, total)


def _cgroup_memory(root: str, proc: str) -> Iterator[Memory]:
    """Yield the memory of each control group above this process that has a limit."""
    try:
        with open(f"{proc}/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            yield from _climb(root, path, names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _climb(f"{root}/memory", path, names)


def _climb(root: str, path: str, names: tuple[str, str, str]) -> Iterator[Memory]:
    limit_name, usage_name, cache_name = names
    parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
    for depth in range(len(parts), -1, -1):
        folder = "/".join([root, *parts[:depth]])
        limit, usage = _figure(f"{folder}/{limit_name}"), _figure(f"{folder}/{usage_name}")
        if limit is not None and usage is not None and 0 < limit < _UNLIMITED:
            used = max(0, usage - _cached_bytes(f"{folder}/memory.stat", cache_name))
            yield Memory(used, limit, folder)


def _figure(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):  # absent, or "max"
        return None


def _cached_bytes(path: str, name: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.split()[0] == name), 0)
    except (OSError, ValueError, IndexError):
        return 0


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, IndexError):
        return 0
    except OSError:
        return _resident_bytes_elsewhere(pid) if not os.path.isdir("/proc/self") else 0


def _resident_bytes_elsewhere(pid: int) -> int:
    import psutil  # noqa: PLC0415  # macOS and BSD have no /proc

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _memory_finding(memory: Memory, declaration: MachineCheck) -> Finding:
    where = "" if memory.limited_by == "machine" else f" of the limit in {memory.limited_by}"
    return Finding(
        "machine.memory",
        declaration.severity,
        "memory",
        f"{_percent(memory.share)}{where} is in use ({_gb(memory.used_bytes)} of "
        f"{_gb(memory.total_bytes)}), the limit is {_percent(declaration.memory)}",
        value=round(memory.share, 4),
        limit=declaration.memory,
        hint="end what is not needed, or raise `memory` in [check.machine]",
    )


def _disk_finding(free: int, declaration: MachineCheck, context: Context) -> Finding:
    return Finding(
        "machine.disk",
        declaration.severity,
        "disk",
        f"{_gb(free)} are free where {context.base} lies, {_gb(declaration.disk_free)} are needed",
        value=free,
        limit=declaration.disk_free,
        hint="free some space (guard prune --dry-run shows what guard itself holds)",
    )


def _gpu_findings(gpus: Iterable[GpuMemory], declaration: MachineCheck) -> Iterator[Finding]:
    limit = declaration.gpu_memory or 0.0
    for gpu in gpus:
        if gpu.share >= limit:
            yield Finding(
                "machine.gpu_memory",
                declaration.severity,
                f"GPU {gpu.index}",
                f"{_percent(gpu.share)} of its memory is in use ({_gb(gpu.used_bytes)} of "
                f"{_gb(gpu.total_bytes)}), the limit is {_percent(limit)}",
                value=round(gpu.share, 4),
                limit=limit,
                hint="nvidia-smi shows which processes hold it",
            )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
