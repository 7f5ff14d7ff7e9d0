"""The machine: limits of control groups, disk, GPUs, and the sampler of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from checks import machine
from checks.context import Context
from checks.declare import Declarations, with_defaults
from checks.errors import DeclarationError
from checks.machine import (
    GpuUnavailable,
    MachineCheck,
    Memory,
    check,
    read_gpus,
    read_memory,
    sample,
)
from checks.model import Severity
from checks.tables import Table

GB = 10**9
MEMINFO = "MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 8000000 kB\n"


class Host:
    """A process table and control groups made of files."""

    def __init__(self, folder: Path, cgroup: str) -> None:
        self.proc = folder / "proc"
        self.cgroups = folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text(MEMINFO)
        (self.proc / "self" / "cgroup").write_text(cgroup)

    def put(self, folder: str, **files: object) -> None:
        """Write the files of one control group."""
        (self.cgroups / folder).mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (self.cgroups / folder / f"memory.{name}").write_text(f"{value}\n")

    def share(self) -> float:
        """Return the used share, two decimals."""
        return round(read_memory(str(self.cgroups), str(self.proc)).share, 2)


def test_the_machine_alone(tmp_path: Path) -> None:
    """Without control groups the available memory counts."""
    assert Host(tmp_path, "").share() == 0.5
    assert Host(tmp_path / "b", "0::/a/b\n").share() == 0.5


def test_version_2_limits(tmp_path: Path) -> None:
    """The limit that leaves least wins, at whatever level; droppable cache is not used."""
    host = Host(tmp_path, "0::/user/job\n")
    host.put("user/job", max="max", current=7 * GB)
    assert host.share() == 0.5
    host.put("user", max=8 * GB, current=7 * GB)
    assert host.share() == 0.88
    host.put("user", stat=f"anon 1\ninactive_file {6 * GB}")
    assert host.share() == 0.5
    host.put("user/job", max=2 * GB, current=19 * GB // 10)
    assert host.share() == 0.95


def test_version_1_limits(tmp_path: Path) -> None:
    """The old hierarchy is read, its 'no limit' understood, also from inside a container."""
    host = Host(tmp_path, "5:cpu:/x\n4:memory:/docker/abc\n")
    host.put("memory/docker/abc", limit_in_bytes=9223372036854771712, usage_in_bytes=GB)
    assert host.share() == 0.5
    inside = Host(tmp_path / "b", "4:memory:/docker/abc\n")
    inside.put("memory", limit_in_bytes=4 * GB, usage_in_bytes=3 * GB)
    inside.put("memory", stat=f"total_inactive_file {GB // 2}")
    assert inside.share() == 0.62


def test_a_limit_above_the_machine_is_none(tmp_path: Path) -> None:
    """A control group that allows more than there is limits nothing."""
    host = Host(tmp_path, "0::/\n")
    host.put("", max=100 * GB, current=99 * GB)
    assert host.share() == 0.5


def test_findings_name_figure_and_limit(tmp_path: Path) -> None:
    """Too little memory or disk is an error with both figures."""
    report = check(MachineCheck(memory=0.0, disk_free=1 << 60), Context(tmp_path, {}))
    assert [finding.check for finding in report.findings] == ["machine.memory", "machine.disk"]
    assert report.findings[1].limit == 1 << 60
    assert 0 < report.figures["machine.memory"] < 1
    assert check(MachineCheck(memory=1.0, disk_free=1), Context(tmp_path, {})).findings == ()


def test_what_nobody_declared_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults hold memory below 80 % and 1 GB free, without stopping anything."""
    monkeypatch.setattr(machine, "read_memory", lambda: Memory(80, 100))
    monkeypatch.setattr(machine, "disk_free", lambda _folder: GB - 1)
    (default,) = with_defaults(None).by_family["machine"]
    report = check(default, Context(tmp_path))
    assert [(f.check, f.severity, f.limit) for f in report.findings] == [
        ("machine.memory", Severity.WARNING, 0.8),
        ("machine.disk", Severity.WARNING, GB),
    ]
    assert report.ok
    declared = Declarations({"machine": (MachineCheck(memory=0.9),)})
    assert with_defaults(declared) == declared


class FakeNvml(types.ModuleType):
    """Answers as NVML does on a machine with two GPUs."""

    class NVMLError(Exception):
        """What NVML raises."""

    def __init__(self, failure: str = "") -> None:
        super().__init__("pynvml")
        self.failure = failure
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        """Open the library."""
        if self.failure:
            raise self.NVMLError(self.failure)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Close the library."""
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """Count the GPUs."""
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        """Name a GPU."""
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> types.SimpleNamespace:  # noqa: N802
        """Tell its memory: the second is nearly full."""
        return types.SimpleNamespace(used=[1, 19][handle] * GB, total=20 * GB)


def test_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each GPU is held against the limit, and the library is closed again."""
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    report = check(MachineCheck(memory=1.0, gpu_memory=0.9), Context(tmp_path, {}))
    assert [(f.subject, f.value) for f in report.findings] == [("GPU 1", 0.95)]
    assert len(sample([os.getpid()], gpus=True).gpus) == 2
    assert nvml.open == 0


@pytest.mark.parametrize("failure", ["", "Driver Not Loaded"])
def test_without_gpus_there_is_a_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """No library or no driver: said with its mend, and not an error."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(failure) if failure else None)
    report = check(MachineCheck(memory=1.0, gpu_memory=0.9), Context(tmp_path, {}))
    assert report.ok
    (skip,) = report.skipped
    assert failure in skip.why
    assert skip.fix
    with pytest.raises(GpuUnavailable):
        read_gpus()
    assert sample([], gpus=True).gpus == ()


def test_sampling_a_tree() -> None:
    """The memory of the watched processes is summed; an ended one counts nothing."""
    code = "import sys; b = bytearray(60_000_000); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alone, both = sample([os.getpid()]), sample([os.getpid(), child.pid])
        assert both.tree_bytes - alone.tree_bytes > 60_000_000
        assert both.at_s >= alone.at_s
        child.communicate(b"")
    assert sample([child.pid]).tree_bytes == 0


@pytest.mark.parametrize("key", ["memory", "gpu_memory", "disk_free", "memry"])
def test_wrong_declarations(key: str) -> None:
    """Shares beyond 1, sizes that are none and unknown keys are errors."""
    value: object = "lots" if key == "disk_free" else 80
    with pytest.raises(DeclarationError, match=key):
        MachineCheck.from_table(Table({key: value}, "[check.machine]"))


def test_declaration() -> None:
    """Keys are read with their units."""
    table = Table({"memory": 0.5, "gpu_memory": 0.7, "disk_free": "5GB"}, "[check.machine]")
    assert MachineCheck.from_table(table) == MachineCheck(0.5, 0.7, 5 * GB)
    assert MachineCheck.from_table(Table({}, "[check.machine]")) == MachineCheck()
