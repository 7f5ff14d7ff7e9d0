"""The memory in use: the machine's and the control groups', of both versions."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from safeguards.supervisor import memory

TOTAL = 64 * 10**9


def _group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def _groups(tmp_path: Path, membership: str) -> list[tuple[int, int]]:
    file = tmp_path / "cgroup"
    file.write_text(membership)
    root = str(tmp_path / "fs")
    return list(memory.control_groups(TOTAL, root=root, membership=str(file)))


def test_version_2_counts_every_group_around(tmp_path: Path) -> None:
    """The limit of an outer group holds too; "max" is none; idle file pages do not count."""
    stat = "anon 1\ninactive_file 300\nactive_file 5"
    _group(
        tmp_path / "fs/slice/job", memory__current=1000, memory__max="max", memory__stat="anon 1"
    )
    _group(tmp_path / "fs/slice", memory__current=1300, memory__max=2000, memory__stat=stat)
    assert _groups(tmp_path, "0::/slice/job\n") == [(1000, 2000)]


def test_version_1_is_read_from_its_controller(tmp_path: Path) -> None:
    """Among several hierarchies the one with the memory controller; a huge limit is none."""
    _group(
        tmp_path / "fs/memory/job",
        memory__usage_in_bytes=900,
        memory__limit_in_bytes=1000,
        memory__stat="total_inactive_file 100",
    )
    _group(tmp_path / "fs/memory", memory__usage_in_bytes=5, memory__limit_in_bytes=2**63 - 4096)
    lines = "9:name=systemd:/\n4:cpu,memory:/job\n3:cpuset:/\n0::/\n"
    assert _groups(tmp_path, lines) == [(800, 1000)]


def test_in_a_container_the_mount_is_the_group(tmp_path: Path) -> None:
    """The path there is the host's and does not exist: the mount itself is looked at."""
    _group(tmp_path / "fs", memory__current=70, memory__max=100)
    assert _groups(tmp_path, "0::/docker/0123456789\n") == [(70, 100)]
    assert _groups(tmp_path, "0::/../other\n") == [(70, 100)]


@pytest.mark.parametrize("limit", ["", "max", "0", "-1", "nonsense"])
def test_a_limit_that_is_none_is_left_out(limit: str, tmp_path: Path) -> None:
    """Nothing is divided by nothing."""
    _group(tmp_path / "fs", memory__current=70, memory__max=limit)
    assert _groups(tmp_path, "0::/\n") == []


def test_the_largest_share_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full group on an empty machine is full."""
    monkeypatch.setattr(memory, "control_groups", lambda _total: iter([(10, 100), (95, 100)]))
    assert memory.memory_share() == 0.95


def test_the_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a control group the share is what psutil says of the machine."""
    monkeypatch.setattr(memory, "control_groups", lambda _total: iter([]))
    assert memory.memory_share() == pytest.approx(psutil.virtual_memory().percent / 100.0, abs=0.03)
