"""Nothing in a test may talk to the world."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import pytest


class OutsideWorld(AssertionError):
    """A test tried to leave this machine."""


def stay_on_loopback(patch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but those to loopback addresses and Unix sockets."""
    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))


def _guarded(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_loopback(str(address[0])):
            raise OutsideWorld(f"a test tried to connect to {address}")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
