"""The probe subprocess: runs FFmpeg on one file at a time, with limited memory and without secrets.

Run as a module by :mod:`app.media.probe_pool`, with the parent's pid and the CPU seconds that one video may take as
its arguments, and a socket as its standard input. It receives paths and sends the result of probing each; it exits when
the socket closes. Only what FFmpeg needs is imported.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.media import images, inspection
from app.media import video as videos
from app.media.decode_budget import DecodeBudget
from app.media.errors import MediaError, NotPlayable, ProbeExhausted, of_os_error
from app.media.info import Conversion, FileFormat, PosterInfo, Task, VideoInfo

#: A frame of 8192x8192 takes 100 MB, and a decoder holds several.
MEMORY_BYTES = 1536 * 1024 * 1024
PR_SET_PDEATHSIG = 1
#: The header of each message: what to do and the length of the path, or the lengths of the metadata and the poster.
REQUEST = struct.Struct("!BI")
RESPONSE = struct.Struct("!II")


def probe(path: Path, cpu_seconds: float) -> tuple[dict[str, Any], bytes]:
    """The metadata of a video and its poster, or the reason why it is rejected and no bytes."""
    budget = DecodeBudget(cpu_seconds=cpu_seconds)
    try:
        video, poster = videos.probe(path, budget), videos.poster(path, budget)
    except NotPlayable as error:
        return _rejected(ProbeExhausted(error.reason, error.detail) if budget.costly else error), b""
    except MediaError as error:
        return _rejected(error), b""
    except OSError as error:
        return _rejected(of_os_error(error)), b""
    except MemoryError:
        return _rejected(NotPlayable("decoding it needs too much memory")), b""
    return _metadata(video, poster), poster.jpeg


def inspect(path: Path, cpu_seconds: float) -> dict[str, Any]:
    """What a file that a caller gives is, or the reason why it is rejected."""
    budget = DecodeBudget(cpu_seconds=cpu_seconds)
    return _guarded(lambda: {"file": asdict(inspection.inspect(path, budget))})


def convert(request: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a picture had to be written anew, or the reason why it cannot be."""
    path, target = Path(request["path"]), Path(request["target"])
    wanted = Conversion(FileFormat(request["format"]), *(request[name] for name in ("width", "height", "max_bytes")))
    return _guarded(lambda: {"written": images.convert(path, target, wanted)})


def still(request: Mapping[str, Any], cpu_seconds: float) -> dict[str, Any]:
    """An empty object once a frame of a video is written, or the reason why it cannot be."""
    path, target, last = Path(request["path"]), Path(request["target"]), bool(request["last"])

    def write() -> dict[str, Any]:
        videos.still(path, target, last=last, budget=DecodeBudget(cpu_seconds=cpu_seconds))
        return {}

    return _guarded(write)


def _guarded(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except MediaError as error:
        return _rejected(error)
    except OSError as error:
        return _rejected(of_os_error(error))
    except MemoryError:
        return _rejected(NotPlayable("decoding it needs too much memory"))


def _metadata(video: VideoInfo, poster: PosterInfo) -> dict[str, Any]:
    return {"video": asdict(video), "poster": {"width": poster.width, "height": poster.height}}


def _rejected(error: MediaError) -> dict[str, Any]:
    reason = error.reason if isinstance(error, NotPlayable) else error.message
    return {"error": type(error).__name__, "reason": reason, "detail": error.detail}


def serve(connection: socket.socket, cpu_seconds: float) -> None:
    """Handle requests until the parent closes the socket.

    The budget ends decoding between two packets; one packet, or the demuxer, may still take minutes. The timer of CPU
    time then kills this process with SIGPROF. (RLIMIT_CPU would count the videos before this one, in whole seconds.)
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with connection, connection.makefile("rb") as requests:
        while head := requests.read(REQUEST.size):
            task, length = REQUEST.unpack(head)
            subject = requests.read(length)
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            metadata, jpeg = _work(Task(task), subject, cpu_seconds)
            signal.setitimer(signal.ITIMER_PROF, 0)
            text = json.dumps(metadata).encode()
            connection.sendall(RESPONSE.pack(len(text), len(jpeg)) + text + jpeg)


def _work(task: Task, subject: bytes, cpu_seconds: float) -> tuple[dict[str, Any], bytes]:
    if task is Task.CONVERT:
        return convert(json.loads(subject)), b""
    if task is Task.STILL:
        return still(json.loads(subject), cpu_seconds), b""
    path = Path(os.fsdecode(subject))
    return probe(path, cpu_seconds) if task is Task.PROBE else (inspect(path, cpu_seconds), b"")


def main(parent: int, cpu_seconds: float) -> None:
    """Limit this process, then serve requests."""
    # A signal to the worker may reach this process too: the current probe finishes, and the worker then kills it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        return
    for limit, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # a lower limit is set, or the system has no such limit
            resource.setrlimit(limit, (most, most))
    serve(socket.socket(fileno=os.dup(0)), cpu_seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
