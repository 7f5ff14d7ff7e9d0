"""How much of the memory that guard may use is taken: the machine's, and each control group's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_CGROUP_ROOT = "/sys/fs/cgroup"


def memory_share() -> float:
    """Return the largest share (0 to 1) of memory in use: of the machine, or of a control group.

    A container is killed at the limit of its group, however much the machine has left. Pages
    of files that were not used lately can be dropped at once and do not count, as in
    the kubelet's "working set".
    """
    import psutil  # noqa: PLC0415 - only where memory is sampled

    machine = psutil.virtual_memory()
    shares = [1.0 - machine.available / machine.total]
    for used, limit in control_groups(machine.total):
        shares.append(used / limit)
    return max(shares)


def control_groups(
    total_bytes: int, *, root: str = _CGROUP_ROOT, membership: str = "/proc/self/cgroup"
) -> Iterator[tuple[int, int]]:
    """Yield (bytes used, bytes allowed) of each group around guard that has a limit.

    Args:
        total_bytes: Memory of the machine; a limit above it is none.
        root: Where the control groups are mounted.
        membership: The file that names guard's groups, versions 1 and 2 (``cgroups(7)``).
    """
    for folder, used_name, limit_name, cache_name in _folders(root, membership):
        limit = _number(os.path.join(folder, limit_name))
        used = _number(os.path.join(folder, used_name))
        if limit is None or used is None or not 0 < limit < total_bytes:
            continue
        yield max(0, used - _cached(os.path.join(folder, "memory.stat"), cache_name)), limit


def _folders(root: str, membership: str) -> Iterator[tuple[str, str, str, str]]:
    lines: list[str] = []
    with contextlib.suppress(OSError), open(membership, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mount = root
            names = ("memory.current", "memory.max", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = os.path.join(root, "memory")
            names = ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path is the host's, and the mount is the group itself.
        parts = [part for part in path.split("/") if part not in {"", ".."}]
        for depth in range(len(parts), -1, -1):
            yield os.path.join(mount, *parts[:depth]), *names


def _number(path: str) -> int | None:
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        return int(file.read())  # "max" is no number: no limit
    return None


def _cached(path: str, name: str) -> int:
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
