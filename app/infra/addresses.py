"""The addresses that URLs of customers may lead to: the public internet only.

The tables replace ``ipaddress.is_global``, which in Python 3.11 counts multicast as global and does not check the
private addresses that NAT64 and 6to4 addresses can embed. Source: IANA special-purpose address registries (RFC 6890).
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORBIDDEN_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux treats 0.0.0.0 as loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host, although in public address space
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

#: All allocated IPv6 unicast space. Everything else is forbidden: ``::``, loopback, IPv4-mapped and
#: -compatible, unique local (fc00::/7), link- and site-local, multicast, local NAT64 (64:ff9b:1::/48).
PUBLIC_IPV6 = IPv6Network("2000::/3")

FORBIDDEN_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, which embeds IPv4, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which embeds IPv4
        "3ffe::/16",  # 6bone, returned
        "3fff::/20",  # documentation
    )
)

#: An IPv6-only network reaches public IPv4 receivers through NAT64, so the embedded address is checked (RFC 6052).
NAT64 = IPv6Network("64:ff9b::/96")

#: Where clouds serve credentials and metadata without authentication: never allowed, not even where private addresses
#: are.
METADATA = (
    IPv4Network("169.254.0.0/16"),  # link-local: AWS, Azure, Google, DigitalOcean, OpenStack …
    IPv4Network("100.100.100.200/32"),  # Alibaba
    IPv4Network("168.63.129.16/32"),  # Azure's host
    IPv4Network("192.0.0.192/32"),  # Oracle
    IPv6Network("fe80::/10"),  # link-local
    IPv6Network("fd00:ec2::/32"),  # AWS
    IPv6Network("fd20:ce::/32"),  # Google
)

_NUMERIC = re.compile(r"\d+|0x[0-9a-f]*")


def permitted(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether ``address`` is public or in one of the ``allowed`` networks."""
    if any(address in network for network in allowed):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in FORBIDDEN_IPV4)
    if address.scope_id is not None:
        return False
    if address in NAT64:
        return permitted(IPv4Address(int(address) & 0xFFFF_FFFF), allowed)
    return address in PUBLIC_IPV6 and not any(address in network for network in FORBIDDEN_IPV6)


def is_metadata(address: Address) -> bool:
    """Whether ``address`` may serve a cloud's metadata, also as embedded in an IPv6 address."""
    embedded = [address]
    if isinstance(address, IPv6Address):
        embedded += [found for found in (address.ipv4_mapped, address.sixtofour) if found is not None]
        if address in NAT64:
            embedded.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return any(one in network for one in embedded for network in METADATA)


def literal(host: str) -> Address | None:
    """The address that a URL's host stands for without DNS, or None for a name. ``host`` has no brackets.

    A host whose last part is a number is an IPv4 address (WHATWG URL, "ends in a number"). Only the
    canonical spelling is accepted: ``127.1``, ``0x7f000001``, ``017700000001`` and ``2130706433`` mean loopback to some
    resolvers only.

    Raises:
        ValueError: an invalid address, or one in another spelling.
    """
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761
        return IPv4Address("127.0.0.1")
    if ":" in name or _NUMERIC.fullmatch(name.rpartition(".")[2]):
        return ip_address(name)
    return None
