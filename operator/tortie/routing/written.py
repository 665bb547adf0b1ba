"""What people write in BGP's objects, read: numbers, durations, addresses, selectors, passwords. Pure.

Each raises ValueError with the field, what is written there, and the way out.
"""

import re
from collections.abc import Mapping

from tortie.addressing import selector
from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import BITS, parse
from tortie.api.bgp_input import AsNumber, Password

# Seconds that routes of a speaker that restarts are kept; RFC 4724 has 12 bits for it.
DEFAULT_RESTART, RESTART_MAX = 120, 4095
# What the kernel takes as a key of TCP MD5 (TCP_MD5SIG_MAXKEYLEN).
PASSWORD_MAX = 80
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}

LINK_LOCAL = parse("fe80::/10")  # RFC 4291: means nothing without the link

Secrets = Mapping[tuple[str, str], str]
Problems = dict[str, str]


def as_number(said: AsNumber) -> int:
    """Return the AS number of `64512`, `"64512"` or `"1.10"` (RFC 5396); raises ValueError."""
    number = str(said)
    high, dot, low = number.partition(".")
    if not number.isascii() or not high.isdigit() or (dot and not low.isdigit()):
        raise ValueError(f"{number!r} is no AS number: write 64512, or 1.10")
    found = (int(high) << 16 | int(low)) if dot else int(high)
    if not 1 <= found < 1 << 32 or (dot and int(low) >= 1 << 16):
        raise ValueError(f"{number!r} is no AS number: they go from 1 to 4294967295")
    return found


def seconds(said: str) -> int:
    """Return the whole seconds of a duration such as `2m` or `1h30m`, at least one; raises ValueError."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)", said)
    if not parts or "".join(number + unit for number, unit in parts) != said:
        raise ValueError(f"{said!r} is no duration: write 90s, or 2m")
    found = max(1, round(sum(float(number) * _UNITS[unit] for number, unit in parts)))
    if found > RESTART_MAX:
        raise ValueError(f"{said} is longer than BGP can say: {RESTART_MAX}s at most")
    return found


def endpoint(said: str) -> tuple[Address, int | None]:
    """Return the address and port of 10.0.0.1, 10.0.0.1:1179, fd00::1 or [fd00::1]:1179; raises ValueError."""
    parts = re.fullmatch(r"\[(.*)\]:([0-9]{1,5})", said) or re.fullmatch(r"([^:]*):([0-9]{1,5})", said)
    plain, port = parts.groups() if parts else (said, None)
    if port and not 1 <= int(port) <= 65535:
        raise ValueError(f"spec.peerIP: {said!r} has no port from 1 to 65535")
    return peer_address(plain, "spec.peerIP"), int(port) if port else None


def peer_address(said: str, where: str) -> Address:
    """Return an address that a session can be with."""
    try:
        found = address(said)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if why := unfit(found):
        raise ValueError(f"{where}: {found} {why}")
    return found


def unfit(one: Address) -> str:
    """Return why no session can be with an address, "" where it can."""
    if one.value == 0:
        return "is no one's address"
    if one.value >> (BITS[one.family] - 8) == 0xFF or (one.family == 4 and one.value >> 28 == 0xE):
        return "is no single machine's address"
    if one.within(LINK_LOCAL):
        return "is the address of one link, which it doesn't name; use another"
    return ""


def number(said: AsNumber | None, where: str) -> int:
    """Return an AS number, 0 where none is written."""
    try:
        return as_number(said) if said is not None else 0
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def restart(said: str | None, where: str, by: str, problems: Problems) -> int:
    """Return a restart's time; what can't be read is no reason to end sessions."""
    try:
        return seconds(said) if said else DEFAULT_RESTART
    except ValueError as error:
        problems[by] = f"{where}: {error}; {DEFAULT_RESTART}s hold until then"
        return DEFAULT_RESTART


def selection(said: str, where: str) -> selector.Selector:
    """Return a selector; the empty text takes all."""
    try:
        return selector.parse(said)
    except selector.SelectorError as error:
        raise ValueError(f"{where}: {error}") from None


def password(said: Password | None, secrets: Secrets, where: str) -> str:
    """Return a password, "" for none; raises ValueError where it should be and isn't."""
    named = said.secret_key_ref if said else None
    if named is None:
        return ""
    found = secrets.get((named.name, named.key))
    if found is None:
        if named.optional:
            return ""
        raise ValueError(
            f"{where}: Secret {named.name} has no key {named.key}, or agents may not read it; no session comes up until then:"
            " make it beside the agents, and name it in the chart's bgp.secrets"
        )
    found = found.removesuffix("\n")
    if not found.isprintable() or '"' in found or not 1 <= len(found.encode()) <= PASSWORD_MAX:
        raise ValueError(
            f'{where}: key {named.key} of Secret {named.name} must be 1 to {PASSWORD_MAX} printable bytes, none of them "'
        )
    return found
