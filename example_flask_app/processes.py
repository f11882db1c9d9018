"""Finding and ending processes that must not outlive the one that started them."""

import ctypes
import os
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with(parent: int, signum: int) -> None:
    """Have the kernel send this process a signal as soon as its parent, given by pid, is gone.

    Linux only; elsewhere nothing happens, and an orphan goes by whatever way it has of its own.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:  # It died before we asked, so no signal will come.
        os._exit(1)


def session_members(session: int) -> list[int]:
    """The processes of a session (Linux; elsewhere none are found)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state ppid pgrp session …; the name may hold anything, brackets too.
            after_name = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # It ended meanwhile.
        if int(after_name[3]) == session and after_name[0] != "Z":
            found.append(int(stat.parent.name))
    return found
