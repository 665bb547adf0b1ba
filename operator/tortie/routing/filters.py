"""BGPFilters as BIRD's functions: one for each direction and family, that accepts, rejects or says nothing of a route. Pure."""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256

from tortie.addressing.ranges import BITS, Family, parse
from tortie.api.bgp_input import Filter, FilterRule
from tortie.routing.written import Problems, as_number

_SYMBOL_MAX = 40  # BIRD's own limit is 64


def functions(filters: Iterable[Filter]) -> tuple[list[str], Problems]:
    """Return the functions of each filter (`symbol`), which take whether a session is external; and what is wrong, by where."""
    lines, problems = list[str](), Problems()
    for one in sorted(filters, key=lambda one: one.metadata.name):
        try:
            lines += list(_filter(one))
        except ValueError as error:
            problems[f"BGPFilter {one.metadata.name}"] = f"{error}; peers that use it get and give no route until it is mended"
    return lines, problems


def _filter(one: Filter) -> Iterator[str]:
    spec, name = one.spec, one.metadata.name
    for direction, family, rules in (
        ("export", 4, spec.export_v4),
        ("import", 4, spec.import_v4),
        ("export", 6, spec.export_v6),
        ("import", 6, spec.import_v6),
    ):
        written = list[str]()
        for number, rule in enumerate(rules):
            try:
                written.append(_rule(rule, 4 if family == 4 else 6))
            except ValueError as error:
                raise ValueError(f"spec.{direction}V{family}[{number}]{error}") from None
        yield f"function {symbol(name, direction, family)}(bool foreign) {{"
        yield from written
        yield "}"


def symbol(name: str, direction: str, family: int) -> str:
    """Return what BIRD calls a filter: its name, cut and marked where BIRD can't take it whole."""
    short = name
    if len(name) > _SYMBOL_MAX or re.fullmatch(r"[A-Za-z0-9.-]+", name) is None:
        cut = re.sub(r"[^A-Za-z0-9.-]", "", name[: _SYMBOL_MAX - 9])
        short = f"{cut}-{sha256(name.encode()).hexdigest()[:8]}"
    return f"'{short}:{direction}{family}'"


def _rule(rule: FilterRule, family: Family) -> str:
    """Return one rule as a statement; raises ValueError with the field and why."""
    conditions = list(_conditions(rule, family))
    ends = "accept" if rule.action == "Accept" else "reject"
    changes = list(_changes(rule)) if rule.action == "Accept" else []
    body = " ".join([*changes, f"{ends};"])
    return f"  if {' && '.join(conditions)} then {{ {body} }}" if conditions else f"  {body}"


def _conditions(rule: FilterRule, family: Family) -> Iterator[str]:
    if rule.cidr:
        yield _relation(rule, family)
    elif rule.match_operator:
        raise ValueError(f".matchOperator: {rule.match_operator} of no cidr; say which")
    elif rule.prefix_length:
        yield f"net.len >= {rule.prefix_length.min or 0} && net.len <= {_most(rule, family)}"
    if rule.source:
        yield "source = RTS_BGP"
    if rule.interface:
        yield f"ifname ~ {pattern(rule.interface, '.interface: ')}"
    if rule.peer_type:
        yield "foreign" if rule.peer_type == "eBGP" else "! foreign"
    for value in rule.communities.values if rule.communities else ():
        kind, community = _community(value, ".communities: ")
        yield f"{community} ~ {kind}"
    if rule.as_path_prefix:
        yield f"bgp_path ~ [= {' '.join(_numbers(rule.as_path_prefix, '.asPathPrefix'))} * =]"
    if rule.priority is not None:
        yield f"defined(bgp_local_pref) && bgp_local_pref = {_preference(rule.priority)}"


def _most(rule: FilterRule, family: Family) -> int:
    most = rule.prefix_length.max if rule.prefix_length else None
    return min(BITS[family], most) if most is not None else BITS[family]


def _relation(rule: FilterRule, family: Family) -> str:
    try:
        its = parse(rule.cidr or "")
    except ValueError as error:
        raise ValueError(f".cidr: {error}") from None
    if its.family != family:
        raise ValueError(f".cidr: {its} is no IPv{family} range")
    operator, length = rule.match_operator or "In", rule.prefix_length
    if operator in ("In", "NotIn"):
        least = max(its.prefix, length.min or 0) if length else its.prefix
        most = _most(rule, family)
        if least > most:
            raise ValueError(f".prefixLength: no prefix in {its} is from {least} to {most} long")
        return f"net {'~' if operator == 'In' else '!~'} [{its}{{{least},{most}}}]"
    bounds = f" && net.len >= {length.min or 0} && net.len <= {_most(rule, family)}" if length else ""
    return f"net {'=' if operator == 'Equal' else '!='} {its}{bounds}"


def _changes(rule: FilterRule) -> Iterator[str]:
    for one in rule.operations or ():
        if one.add_community:
            yield add(one.add_community.value, ".operations: ")
        if one.prepend_as_path:
            # Each goes before those that are there.
            yield from (f"bgp_path.prepend({n});" for n in reversed(_numbers(one.prepend_as_path.prefix, ".operations")))
        if one.set_priority:
            yield f"bgp_local_pref = {_preference(one.set_priority.value)};"


def _numbers(said: Iterable[int | str], where: str) -> list[str]:
    try:
        return [str(as_number(one)) for one in said]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def pattern(said: str, where: str = "") -> str:
    """Return a pattern of interfaces' names as BIRD's text; raises ValueError."""
    if re.fullmatch(r"[A-Za-z0-9_.:@*?-]{1,64}", said) is None:
        raise ValueError(f"{where}{said!r} is no interface's name; * stands for any text")
    return f'"{said}"'


def add(said: str, where: str = "") -> str:
    """Return the statement that adds a community to a route; raises ValueError."""
    kind, community = _community(said, where)
    return f"{kind}.add({community});"


def _community(said: str, where: str) -> tuple[str, str]:
    """Return the attribute that a community is in, and the community: aa:nn of 16 bits, or aa:nn:mm of 32 (RFC 8092)."""
    parts = said.split(":")
    kind, most = ("bgp_community", 0xFFFF) if len(parts) == 2 else ("bgp_large_community", 0xFFFFFFFF)
    if len(parts) not in (2, 3) or not all(re.fullmatch("[0-9]{1,10}", part) and int(part) <= most for part in parts):
        raise ValueError(
            f"{where}{said!r} is no community: write 64512:100, both up to 65535, or 64512:1:100, each up to 4294967295"
        )
    return kind, f"({','.join(str(int(part)) for part in parts)})"


def _preference(priority: int) -> int:
    """Return a priority, of which a lower one is preferred, as BGP's local preference, of which a higher one is."""
    return 2**31 - 1 - priority
