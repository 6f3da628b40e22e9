"""The process that looks at films: FFmpeg, alone with one file, with little memory and without our secrets.

Run as a module by :mod:`app.assets.probe_pool`, with the parent's pid as its argument and a socket as its standard
input. Of each path that comes in it says what is there, and it ends when the socket does. Only what FFmpeg needs is
imported.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.assets import media
from app.assets.errors import AssetError, NotPlayable, of_os_error
from app.assets.media_info import Film, Poster

#: A picture of 8192x8192 takes 100 MB, and a decoder holds several; what needs more is no film.
MEMORY_BYTES = 1536 * 1024 * 1024
PR_SET_PDEATHSIG = 1
#: Before each message: its length; before an answer that of the poster too.
REQUEST = struct.Struct("!I")
ANSWER = struct.Struct("!II")


def examine(path: Path) -> tuple[dict[str, Any], bytes]:
    """What to answer: facts of the film and its poster, or why it is refused."""
    try:
        film, poster = media.probe(path), media.poster(path)
    except AssetError as error:
        return _refusal(error), b""
    except OSError as error:
        return _refusal(of_os_error(error)), b""
    except MemoryError:
        return _refusal(NotPlayable("it takes more memory than a film may")), b""
    return _facts(film, poster), poster.jpeg


def _facts(film: Film, poster: Poster) -> dict[str, Any]:
    return {"film": asdict(film), "poster": {"width": poster.width, "height": poster.height}}


def _refusal(error: AssetError) -> dict[str, Any]:
    about = error.reason if isinstance(error, NotPlayable) else error.message
    return {"refused": type(error).__name__, "about": about, "detail": error.detail}


def serve(connection: socket.socket) -> None:
    """Answer until the other end closes."""
    with connection, connection.makefile("rb") as requests:
        while head := requests.read(REQUEST.size):
            path = Path(os.fsdecode(requests.read(*REQUEST.unpack(head))))
            facts, jpeg = examine(path)
            text = json.dumps(facts).encode()
            connection.sendall(ANSWER.pack(len(text), len(jpeg)) + text + jpeg)


def main(parent: int) -> None:
    """The whole life of the process."""
    # Whoever stops a worker may signal all its processes; a film that is being kept is finished, and then we are ended.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        return
    for limit, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # a lower one is there, or the system knows none
            resource.setrlimit(limit, (most, most))
    serve(socket.socket(fileno=os.dup(0)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
