"""What the supervisor is asked for, and what it says afterwards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how large a command may get, and what happens to its tree.

    Attributes:
        timeout_s: Seconds until the whole tree is ended; None for no limit.
        max_memory_share: Share (0 to 1) of the memory of this machine, or of the tightest control
            group around guard, above which the tree is ended; None for no limit.
        grace_s: Seconds between SIGTERM and SIGKILL.
        sample_interval_s: Seconds between two looks at the memory.
        kill_left_over: Whether what still runs after the command is ended too.
        release_pipes: Whether guard lets go of standard input and output where they are pipes, so
            that a neighbour in a pipeline sees the end as soon as the command does. Only
            for callers that need neither again: no second attempt, no output of their own.
    """

    timeout_s: float | None = None
    max_memory_share: float | None = None
    grace_s: float = 10.0
    sample_interval_s: float = 0.5
    kill_left_over: bool = False
    release_pipes: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from a later one that has the same number.

    Attributes:
        pid: Process id.
        started_ticks: Start time in clock ticks since boot (``/proc/<pid>/stat``, field 22).
        name: Short name as the kernel knows it; never arguments, which may hold secrets.
    """

    pid: int
    started_ticks: int
    name: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a supervised command ended.

    Attributes:
        status: What guard exits with: the child's own, 128 + n for a signal, 124 for the timeout.
        signal: The signal that ended the child, or None.
        timed_out: Whether the timeout ended it.
        memory_exceeded: Whether the memory limit ended it.
        interrupted: Whether guard was asked to stop meanwhile (INT, QUIT, TERM or HUP).
        terminal_interrupt: Whether the child died of an INT that everyone in its group received;
            see `reraise_interrupt`.
        elapsed_s: Seconds from its start to its end, on the monotonic clock.
        peak_memory_bytes: Largest sum of resident sizes of the tree that was sampled (pages shared
            between processes count for each); None where nothing was sampled.
        memory_share: The share that exceeded the limit, or None.
        left_over: Processes of the tree that still run.
        ended: Processes of the tree, beside the child, that guard had to end.
    """

    status: int
    signal: int | None = None
    timed_out: bool = False
    memory_exceeded: bool = False
    interrupted: bool = False
    terminal_interrupt: bool = False
    elapsed_s: float = 0.0
    peak_memory_bytes: int | None = None
    memory_share: float | None = None
    left_over: tuple[Process, ...] = ()
    ended: tuple[Process, ...] = ()
