"""Ports of this host, tried before anything else is opened: a server's own error would name no setting."""

import socket

from app.settings import SettingsError


def check_free(setting: str, host: str, port: int) -> None:
    """Raises SettingsError if nothing can listen there; port 0 is any free one. An empty host is every address."""
    if not port:
        return
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(address)
    except OSError as error:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        variable = f"FILMGATE_{setting.upper().replace('.', '_')}"
        raise SettingsError(
            f"{setting}: cannot listen on {place} ({error.strerror}). Each process on a host needs another port: "
            f"set {variable} to another one, or to 0 for any that is free."
        ) from error
