"""Writes that no time of a file tells of: those through a shared mapping of memory.

The kernel sets a file's time when a page becomes dirty, not at each store after that. So a
process that had a page mapped and dirty when the file was read may change it again, and mode,
size and times stay as they were. tmpfs never writes a page back, and there a page that was only
read before may be written untold; so it may through an overlay that keeps what is written in tmpfs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import struct
import threading
from dataclasses import dataclass

_MOUNTS = "/proc/self/mountinfo"
_PATIENCE_S = 2.0
IN_MEMORY: tuple[bytes, ...] = (b"tmpfs", b"ramfs")
"""File systems that tell of no write through a mapping once the page was read."""
_OVERLAY = b"overlay"
_LINE = re.compile(rb"(?m)^[0-9a-f]+-[0-9a-f]+ .w.s [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ ([0-9]+)")
_QUERY = struct.Struct("=9Q4I2Q")
"""`struct procmap_query` (include/uapi/linux/fs.h, Linux 6.11): its size, flags, address; then the
answer: start, end, flags, size of pages, offset, inode, device; names that nobody asks for."""
_PROCMAP_QUERY = 3 << 30 | _QUERY.size << 16 | ord("f") << 8 | 17
_NEXT_WRITABLE_SHARED_FILE = 0x02 | 0x08 | 0x10 | 0x20


@dataclass(frozen=True, slots=True)
class Unseen:
    """Files whose signature does not tell whether they were written.

    Attributes:
        inodes: Of files that a process has mapped, shared and for writing. Without the device:
            on btrfs and overlayfs a mapping names another one than `stat` does.
        devices: File systems in memory.
        everything: Whether each file is one: below an overlay's folder they have other devices.
    """

    inodes: frozenset[int] = frozenset()
    devices: frozenset[int] = frozenset()
    everything: bool = False

    def __contains__(self, info: os.stat_result) -> bool:
        """Return whether a file is one of them."""
        return self.everything or info.st_ino in self.inodes or info.st_dev in self.devices


def find_unseen(root_fd: int) -> Unseen:
    """Return what is so now: to be asked before files are read.

    Mappings of other users' processes are seen by root alone, those of other containers by nobody.

    Args:
        root_fd: The open folder that is read.
    """
    overlaid = os.fstat(root_fd).st_dev in _devices((_OVERLAY,))
    return Unseen(_mapped(), frozenset(_devices(IN_MEMORY)), overlaid and _tells_nothing(root_fd))


def _tells_nothing(folder: int) -> bool:
    """Return whether a write to a page that was only read leaves the time of the file alone.

    Where an overlay keeps what is written, its mount tells at best by a path that is not to be
    seen in a container. So it is tried, with a file that never has a name.
    """
    try:
        fd = os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError:
        return False  # read-only, another's, or an older kernel
    try:
        os.write(fd, b"a")
        with mmap.mmap(fd, 1) as page:
            page.read_byte()
            os.utime(fd, ns=(0, 0))
            page[0] = 0
            return os.fstat(fd).st_mtime_ns == 0
    except (OSError, ValueError):
        return False
    finally:
        os.close(fd)


def _devices(kinds: tuple[bytes, ...]) -> list[int]:
    """Return the mounted file systems of some kinds."""
    found = []
    try:
        with open(_MOUNTS, "rb") as lines:
            for line in lines:
                words = line.split(b" ")
                if words[words.index(b"-") + 1] in kinds:
                    major, minor = words[2].split(b":")
                    found.append(os.makedev(int(major), int(minor)))
    except (OSError, ValueError):
        pass
    return found


def _mapped() -> frozenset[int]:
    """Return the inodes of files that any process has mapped, shared and for writing.

    Who asks for the mappings of a process that waits for a dead server waits with it: so that is
    left to a thread, and what it has not found in time is not known.
    """
    found: set[int] = set()
    thread = threading.Thread(target=_collect, args=(found,), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system grants no thread
        _collect(found)
    else:
        thread.join(_PATIENCE_S)
    return frozenset(found)


def _collect(found: set[int]) -> None:
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return
    for pid in pids:
        # It has ended, or is another user's.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb", buffering=0) as maps:
            found |= mapped_by(maps.fileno())


def mapped_by(maps: int, *, ask: bool = True) -> set[int]:
    """Return the inodes of files that one process has mapped, shared and for writing.

    Args:
        maps: Open `/proc/PID/maps`.
        ask: Whether the kernel may be asked for these mappings alone, where it can be.

    Raises:
        OSError: The process has ended.
    """
    found: set[int] = set()
    answer = bytearray(_QUERY.size)
    address = 0
    while ask:
        flags = _NEXT_WRITABLE_SHARED_FILE
        _QUERY.pack_into(answer, 0, _QUERY.size, flags, address, *[0] * 12)
        try:
            fcntl.ioctl(maps, _PROCMAP_QUERY, answer)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            break  # the kernel is older, or the process has ended
        _, _, _, _, address, _, _, _, inode, *_ = _QUERY.unpack(answer)
        found.add(inode)
    with open(maps, "rb", closefd=False) as file:
        return {int(inode) for inode in _LINE.findall(file.read())}
