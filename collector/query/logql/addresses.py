"""
`ip("...")`: an address, a range `10.0.0.1-10.0.0.9` or a network `10.0.0.0/8`, IPv4 and IPv6.

In a label filter the whole label is an address; in a line filter any address in the line counts.
Candidates in a line are runs of the characters that addresses consist of, tried by `ipaddress`.
"""

import ipaddress
import re
from typing import Final, TypeAlias

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_V4: Final = re.compile(r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9.])")
_V6: Final = re.compile(r"(?<![0-9A-Fa-f:.])[0-9A-Fa-f:]{2,39}(?![0-9A-Fa-f:])")


class IpMatcher:
    """
    Whether an address lies in what `ip("...")` names.

    Raises:
        ValueError: the text names no address, range or network.
    """

    def __init__(self, text: str) -> None:
        low, dash, high = text.partition("-")
        try:
            if dash:
                first, last = _address(low.strip()), _address(high.strip())
            elif "/" in text:
                network = ipaddress.ip_network(text, strict=False)
                first, last = network.network_address, network.broadcast_address
            else:
                first = last = _address(text)
        except ValueError:
            raise ValueError(
                'ip() takes an address, a network "10.0.0.0/8" or a range "10.0.0.1-10.0.0.9"'
            ) from None
        if first.version != last.version or int(first) > int(last):
            raise ValueError("the range of ip() has no addresses in it")
        self._version = first.version
        self._first, self._last = int(first), int(last)

    def holds(self, text: str) -> bool | None:
        """Whether this address is inside; None when the text is no address."""
        try:
            address = _address(text)
        except ValueError:
            return None
        return address.version == self._version and self._first <= int(address) <= self._last

    def finds(self, line: str) -> bool:
        """Whether any address in a line is inside."""
        pattern = _V4 if self._version == 4 else _V6
        return any(self.holds(match[0]) for match in pattern.finditer(line))


def _address(text: str) -> _Address:
    return ipaddress.ip_address(text)
