"""What BIRD answers at its control socket: lines with a code of four digits (doc/reply_codes in its sources).

Belongs here: asking, and reading the answers. Does not: BIRD's process (`tortie.agent.bird`).
"""

import asyncio
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Seconds for an answer; BIRD reads a configuration of 5,000 sessions in less than one.
_PATIENCE = 10.0
_LINE = re.compile(r"(\d{4})([- ])(.*)")
_ROUTE = re.compile(r"(\S+/\d+)\s+unicast \[(\S+) ")
_FAILED = "89"  # how the codes of errors begin
# Longer than any line of an answer.
_LIMIT = 1 << 20


class BirdError(Exception):
    """BIRD doesn't answer, or refuses; the text is for people."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """How a session is.

    Attributes:
        of: The other side, as the configuration describes it.
        state: BGP's own name of it (RFC 4271, section 8.2.2), or `Down`.
        since: When it became so, in UTC, as 2026-11-30T15:12:51.
        received, sent: Routes.
        error: Why it isn't established, as BIRD says it; "": it is, or nobody knows yet.
    """

    name: str
    of: str
    peer: str
    peer_as: int
    state: str
    since: str
    received: int = 0
    sent: int = 0
    error: str = ""

    @property
    def is_up(self) -> bool:
        """Whether routes are exchanged."""
        return self.state == "Established"


async def ask(socket: Path, command: str) -> list[str]:
    """Return the lines of an answer, without codes; raises BirdError."""
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_unix_connection(socket, limit=_LIMIT)
            try:
                await _answer(reader)  # it greets first
                writer.write(command.encode() + b"\n")
                return await _answer(reader)
            finally:
                writer.close()
    except TimeoutError:
        raise BirdError(f"no answer within {_PATIENCE:g} s") from None
    except (OSError, ValueError) as error:
        raise BirdError(f"it can't be asked: {error}") from error


async def _answer(reader: asyncio.StreamReader) -> list[str]:
    lines = list[str]()
    while True:
        line = (await reader.readline()).decode(errors="replace").rstrip("\n")
        if not line:
            raise BirdError("it ended in the middle of an answer")
        found = _LINE.match(line)
        if found is None:  # goes on as the line before
            lines.append(line.removeprefix(" "))
            continue
        code, more, text = found.groups()
        lines.append(text)
        if more == " ":
            if code[0] in _FAILED:
                raise BirdError(text)
            return lines


async def sessions(socket: Path) -> list[SessionState]:
    """Return all BGP sessions; raises BirdError."""
    return list(read_sessions(await ask(socket, "show protocols all")))


async def best_routes(socket: Path) -> dict[str, tuple[str, str]]:
    """Return by prefix where BIRD's best routes lead, and the session that told of each; raises BirdError."""
    return dict(read_routes(await ask(socket, "show route primary where source = RTS_BGP")))


def read_routes(lines: Iterable[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the routes of an answer to `show route primary`: each is a line, and one for its next hop."""
    prefix = session = ""
    for line in lines:
        if found := _ROUTE.match(line):
            prefix, session = found.groups()
        elif prefix and line.strip().startswith("via "):
            yield prefix, (line.strip().split()[1], session)
            prefix = ""


def read_sessions(lines: Iterable[str]) -> Iterator[SessionState]:
    """Yield the BGP sessions of an answer to `show protocols all`."""
    head, facts = list[str](), dict[str, str]()
    for line in [*lines, "end of answer"]:
        if line[:1].isspace() or not line:
            name, colon, value = line.strip().partition(":")
            if colon:
                facts.setdefault(name, value.strip())
            continue
        if head[1:2] == ["BGP"]:
            yield _session(head, facts)
        head, facts = line.split(), {}


def _session(head: list[str], facts: dict[str, str]) -> SessionState:
    state = facts.get("BGP state", "Down")
    received, sent = (re.search(rf"(\d+) {what}", facts.get("Routes", "")) for what in ("imported", "exported"))
    return SessionState(
        name=head[0],
        of=facts.get("Description", ""),
        peer=facts.get("Neighbor address", ""),
        peer_as=int(facts.get("Neighbor AS", "0")),
        state=state,
        since=head[4] if len(head) > 4 else "",
        received=int(received[1]) if received else 0,
        sent=int(sent[1]) if sent else 0,
        error="" if state == "Established" else facts.get("Last error", ""),
    )
