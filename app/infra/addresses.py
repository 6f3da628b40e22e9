"""Which addresses a customer may make us call: the public internet, nothing else.

The tables are our own. ``ipaddress.is_global`` of Python 3.11 calls multicast "global", and looks neither into NAT64
nor into 6to4 addresses, which can wrap a private one. Source: the IANA special-purpose address registries (RFC 6890).
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORBIDDEN_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host, public by its number only
        "169.254.0.0/16",  # link-local; the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

#: All of IPv6 that is handed out. What lies outside is forbidden without a name: ``::``, loopback, IPv4-mapped and
#: -compatible, unique local (fc00::/7), link- and site-local, multicast, local NAT64 (64:ff9b:1::/48).
PUBLIC_IPV6 = IPv6Network("2000::/3")

FORBIDDEN_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, which wraps IPv4, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: wraps IPv4
        "3ffe::/16",  # 6bone, returned
        "3fff::/20",  # documentation
    )
)

#: A network without IPv4 reaches public IPv4 receivers this way, so what counts is the address inside (RFC 6052).
NAT64 = IPv6Network("64:ff9b::/96")

_NUMERIC = re.compile(r"\d+|0x[0-9a-f]*")


def permitted(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether we may connect to ``address``: it is public, or in one of the ``allowed`` networks."""
    if any(address in network for network in allowed):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in FORBIDDEN_IPV4)
    if address.scope_id is not None:
        return False
    if address in NAT64:
        return permitted(IPv4Address(int(address) & 0xFFFF_FFFF), allowed)
    return address in PUBLIC_IPV6 and not any(address in network for network in FORBIDDEN_IPV6)


def literal(host: str) -> Address | None:
    """The address that a URL's host stands for without DNS, or None for a name. ``host`` has no brackets.

    A host whose last part is a number is an IPv4 address (WHATWG URL, "ends in a number"). Only the usual spelling is
    taken: ``127.1``, ``0x7f000001``, ``017700000001`` and ``2130706433`` mean loopback to some resolvers only.

    Raises:
        ValueError: an address in an unusual spelling, or none at all.
    """
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761
        return IPv4Address("127.0.0.1")
    if ":" in name or _NUMERIC.fullmatch(name.rpartition(".")[2]):
        return ip_address(name)
    return None
