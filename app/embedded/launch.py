"""Executes a command that is signaled when its parent dies, optionally as an unprivileged user.

Runs as a script between ``fork`` and ``exec``, with the standard library only: ``preexec_fn`` in a threaded parent may
deadlock. Arguments: the parent's pid, the signal to send when the parent dies, the user id to switch to or ``-``,
``reach`` or ``-``, then the command.

``reach`` keeps the one capability that allows traversing directories that the new user may not enter. A project under
/root works with it, without changes to any permissions.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def main(arguments: Sequence[str]) -> None:
    parent, death_signal, user, reach, *command = arguments
    # The interpreter ignores SIGPIPE, and an ignored signal stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if user != "-":
        _switch_user(int(user), reach=reach == "reach")
    if sys.platform == "linux":
        # A change of user would clear it, so it is set afterwards.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != int(parent):
        sys.exit("the parent process has ended")
    os.execv(command[0], command)  # noqa: S606  # the command comes from this package


def _switch_user(user: int, *, reach: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    keep = reach and sys.platform == "linux"
    if keep:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    if keep:
        _keep_traversal(libc)


def _keep_traversal(libc: ctypes.CDLL) -> None:
    """Drop all capabilities except the smallest sufficient one; containers often withhold CAP_DAC_READ_SEARCH."""
    header, sets = _Header(CAPABILITY_VERSION_3, 0), (_Sets * 2)()
    libc.capget(ctypes.byref(header), sets)
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        bit = 1 << capability
        if sets[0].permitted & bit:
            kept = (_Sets * 2)(_Sets(bit, bit, bit), _Sets(0, 0, 0))
            libc.capset(ctypes.byref(header), kept)
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return


if __name__ == "__main__":
    main(sys.argv[1:])
