"""Runs a program that ends with whoever started it, however that ends: also by ``kill -9``.

:func:`tied` makes the command. It is this file, run as a program, which has the kernel
kill it when its parent goes (``PR_SET_PDEATHSIG``), and then becomes the program.

For the kernel a parent is a thread: start what is tied in one that lasts as long as it should.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["tied"]

_PR_SET_PDEATHSIG = 1


def tied(command: Sequence[str]) -> list[str]:
    """Return what runs *command* as long as this process lives. The process that is started becomes it.

    On Linux: elsewhere there is no such thing, and what is started may outlive this process.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    """Become the command, unless the parent has gone already.

    Raises:
        OSError: The kernel doesn't know how. It takes Linux.

    """
    parent, *command = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() == int(parent):
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
