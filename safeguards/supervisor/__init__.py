"""The child process of `guard run`: started, watched, limited and ended, and otherwise left alone.

guard is a wrapper in the manner of `env` and `nice`, with one difference: it stays, because
its work goes on after the command. What that asks for, and what was decided:

**No terminal in between.** The child inherits the very file descriptors that guard was given:
0, 1 and 2 (closed ones stay closed) and every other that the shell passed on, such as those of
``<(…)``. guard's own are opened close-on-exec and never reach it. There is no pseudo-terminal,
and nothing of the streams is read or kept.

**The same process group.** The child stays in guard's group and guard never calls `tcsetpgrp`.
A group of its own for the child would deliver each signal once by construction, but it breaks
what people do every day: in ``guard run -- a | less`` the pager would lose the terminal,
Ctrl-C would not reach the rest of a pipeline, ``kill -9 %1`` would miss the child.

**A signal reaches the child once.** In one group, a Ctrl-C reaches guard and the child, while
``kill -TERM <pid of guard>`` reaches guard alone and has to be passed on; batch systems
(SLURM, systemd) signal every process. A handler cannot tell these apart, and `si_code` tells
the terminal from a process but not a group from one pid. So a *witness* stands in the group: a
tiny process that says which signals it received itself. What it received too was for everyone
and is not passed on; what guard alone received is. Where no witness can be started, signals of
the keyboard count as the terminal's while guard is in the foreground, and all others are
passed on.

**Stopping follows the child.** guard does not stop at Ctrl-Z but when the child did, by the same
signal; a child that ignores Ctrl-Z, or tidies the screen first (`vim`, `less`), behaves as it
does without guard. A SIGSTOP is followed by SIGTSTP, which the kernel drops where there
is no job-control shell that could wake guard up again; without a controlling terminal guard
never stops, and its limits hold. Time spent stopped does not count towards the timeout.

**Whoever started guard decides what is ignored.** A signal that was ignored on entry (`nohup`,
``&`` in a script) stays ignored in guard and in the child. SIGPIPE and SIGXFSZ, which Python
ignores for itself, are the default in the child. The mask is inherited.

**guard is a subreaper** (Linux), so a daemon that called `setsid` becomes guard's child when its
parent ends, and the whole tree stays known; as process 1 of a container guard reaps zombies and
passes signals on like any small init. What the command leaves running on purpose is reported,
not ended, unless asked for.

**Killed by signal 9, guard does not take the child along** (no PR_SET_PDEATHSIG): a training run
of two days must not die because its watcher did. The next guard command finds the unfinished
operation; with the identity that `on_start` lets the caller record, `is_running` says whether the
command still runs, and `end_tree` ends it before a rollback.
"""

from __future__ import annotations

from safeguards.supervisor.launch import reserve_standard_streams
from safeguards.supervisor.model import Limits, Outcome, Process
from safeguards.supervisor.signals import Held, delay_signals, hold_signals, reraise_interrupt
from safeguards.supervisor.supervision import supervise
from safeguards.supervisor.tree import end_tree, identify, is_running

__all__ = [
    "Held",
    "Limits",
    "Outcome",
    "Process",
    "delay_signals",
    "end_tree",
    "hold_signals",
    "identify",
    "is_running",
    "reraise_interrupt",
    "reserve_standard_streams",
    "supervise",
]
