"""Which machines anyone may ask: those that the internet reaches."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_UNICAST = IPv6Network("2000::/3")  # all that is given out so far; what looks global outside of it leads elsewhere
_NAT64 = IPv6Network("64:ff9b::/96")  # an IPv4 address in its last 32 bits (RFC 6052)
_TUNNELS = (  # addresses that carry an IPv4 address, to which a gateway of this network may bring them
    IPv6Network("2001::/32"),  # Teredo
    IPv6Network("2002::/16"),  # 6to4
)
_NEAR_BY = (  # global by their numbers, yet answered by the network that this machine is in
    IPv4Network("168.63.129.16/32"),  # Azure's host: metadata, keys and certificates
    IPv4Network("192.0.0.0/24"),  # Oracle's metadata among them
    IPv4Network("192.88.99.0/24"),  # the nearest 6to4 relay
)


def is_public(machine: str) -> bool:
    """Whether a numeric address is one of the public internet, and not of this machine, its network or its cloud."""
    address = ip_address(machine.partition("%")[0])
    if isinstance(address, IPv6Address):
        if (inner := address.ipv4_mapped) is not None:
            return _is_public(inner)
        if address in _NAT64:  # the only way to IPv4 in networks that have none themselves
            return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        return address.is_global and address in _UNICAST and not any(address in network for network in _TUNNELS)
    return _is_public(address)


def _is_public(address: IPv4Address) -> bool:
    near_by = any(address in network for network in _NEAR_BY)
    return address.is_global and not address.is_multicast and not near_by
