"""URLs that providers name: result URLs, and the ``Location`` of redirects.

They may hold any byte: spaces, letters in UTF-8 or Latin-1, quotes. Browsers request such a URL percent-encoded and
leave everything else as it is, since it may be signed: ``%2F``, ``%2B`` and ``+`` arrive byte for byte.
"""

import re

from yarl import URL

#: The bytes that a URL may hold (RFC 3986). A "%" is kept also where no escape follows, as browsers do.
_LEGAL = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?#[]@!$&'()*+,;=%")
_AUTHORITY = re.compile(rb"((?:[A-Za-z][A-Za-z0-9+.-]*:)?//)([^/]*)")
#: Spaces and control characters, which browsers remove at both ends.
_BLANK = bytes(range(0x21))


def url_of(text: str, base: URL | None = None) -> URL:
    """The URL that a browser would request. ``base`` is the URL of the redirect, to which ``text`` may be relative.

    ``text`` may hold undecodable bytes as surrogates, as the HTTP client gives them. Whether the address may be called
    is checked when a connection to it is opened.

    Raises:
        ValueError: not a URL.
    """
    raw = text.encode(errors="surrogateescape").strip(_BLANK).translate(None, b"\t\r\n")
    raw, _, _ = raw.partition(b"#")  # a fragment is not sent
    path, mark, query = raw.partition(b"?")
    path = path.replace(b"\\", b"/")
    authority = ""
    if found := _AUTHORITY.match(path):
        authority = found[1].decode() + _authority(found[2])
        path = path[found.end() :]
    url = URL(authority + _quoted(path) + (mark + _quoted(query).encode()).decode(), encoded=True)
    return url if base is None else base.join(url)


def _quoted(raw: bytes) -> str:
    return "".join(chr(byte) if byte in _LEGAL else f"%{byte:02X}" for byte in raw)


def _authority(raw: bytes) -> str:
    """User, host and port; the host in lower case, and in Punycode if it is not ASCII."""
    user, at, place = raw.rpartition(b"@")
    if not place.isascii():
        host, colon, port = place.decode().partition(":")
        place = (URL.build(scheme="http", host=host).raw_host or "").encode() + (colon + port).encode()
    if not place or not all(byte in _LEGAL for byte in place):
        raise ValueError("the URL has no valid host")
    return _quoted(user) + at.decode() + place.decode().lower()
