"""BIRD as the agent's child, for real: started, told of changes, killed, and ended; and what it answers."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kube.watching import eventually
from tortie.agent import control
from tortie.agent.bird import Bird
from tortie.agent.control import SessionState, read_routes, read_sessions

needs_bird = pytest.mark.skipif(not shutil.which("bird"), reason="BIRD isn't installed: apt-get install bird2")
# No kernel protocol, so it needs no namespace: what it would give to a kernel is shown on a cluster.
CONFIGURATION = """log stderr all;
router id 192.0.2.1;
timeformat protocol "%Y-%m-%dT%H:%M:%S";
protocol device {{}}
protocol bgp bgp4_192_0_2_2 {{
  description "node b"; local 192.0.2.1 port {port} as 64512; neighbor 192.0.2.2 port {port} as {number}; multihop;
  passive; ipv4 {{ import all; export none; }};
}}
"""


def configuration(number: int = 64512, port: int = 10179) -> str:
    return CONFIGURATION.format(number=number, port=port)


async def nothing_to_keep() -> bool:
    return False


class Child:
    """A BIRD, run by a task."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.recovering = folder, False
        self.bird = Bird(folder, self._keep)
        self.task = asyncio.create_task(self.bird.run())

    async def _keep(self) -> bool:
        return self.recovering

    def pids(self) -> set[int]:
        """The processes that have this folder's configuration."""
        found = set()
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if words[:1] == [b"bird"] and str(self.folder / "bird.conf").encode() in words:
                found.add(int(entry.name))
        return found

    def words(self) -> list[str]:
        (pid,) = self.pids()
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")

    async def numbers(self) -> list[int]:
        return [one.peer_as for one in await self.bird.sessions()]


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    made = Child(tmp_path / "bird")
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)
    await eventually(lambda: made.pids() == set(), "it is gone")


async def started(child: Child, text: str) -> None:
    child.bird.want(text)
    await eventually(lambda: child.bird.is_current, "it is told")
    await answers(child)


async def answers(child: Child) -> None:
    """Return when BIRD answers: its socket is there a moment before it listens."""
    async with asyncio.timeout(60):
        while True:
            with suppress(control.BirdError):
                await control.ask(child.bird.socket, "show status")
                return
            await asyncio.sleep(0.01)


@needs_bird
async def test_none_runs_until_one_is_wanted(child: Child) -> None:
    assert child.pids() == set()
    await started(child, configuration())
    assert await child.numbers() == [64512]
    assert "-R" not in child.words()
    assert (child.folder / "bird.conf").stat().st_mode & 0o777 == 0o600, "passwords are in it"


@needs_bird
async def test_a_change_is_taken_by_the_one_that_runs(child: Child) -> None:
    await started(child, configuration())
    before = child.pids()
    await started(child, configuration(number=64513))
    await eventually(lambda: "64513" in (child.folder / "bird.conf").read_text(), "it was told")
    for _ in range(1000):
        if await child.numbers() == [64513]:
            break
        await asyncio.sleep(0.01)
    assert await child.numbers() == [64513]
    assert child.pids() == before


@needs_bird
async def test_what_it_refuses_takes_nothing_s_place(child: Child) -> None:
    await started(child, configuration())
    before = child.pids()
    child.bird.want("router id nonsense;")
    await eventually(lambda: bool(child.bird.problem), "it says so")
    assert "BIRD refuses its configuration, and goes on with the one before: line 1:" in child.bird.problem
    assert not child.bird.is_current
    assert (child.pids(), (child.folder / "bird.conf").read_text()) == (before, configuration())
    await started(child, configuration())
    assert child.bird.problem == ""


@needs_bird
async def test_a_first_one_that_it_refuses_starts_none(child: Child) -> None:
    child.bird.want("router id nonsense;")
    await eventually(lambda: bool(child.bird.problem), "it says so")
    assert child.pids() == set()
    await started(child, configuration())
    assert len(child.pids()) == 1


@needs_bird
async def test_one_that_is_killed_is_started_again_and_keeps_the_kernel_s_routes(child: Child) -> None:
    await started(child, configuration())
    (before,) = child.pids()
    child.recovering = True
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: bool(child.pids() - {before}), "another runs")
    await answers(child)
    assert "-R" in child.words()
    assert await child.bird.is_recovering(), "its peer has told nothing"
    assert await child.numbers() == [64512]


@needs_bird
async def test_it_ends_when_it_has_taken_what_it_was_to_take_last(child: Child) -> None:
    await started(child, configuration())
    child.bird.want("router id 192.0.2.1;\nprotocol device {}\n", ends=True)
    await eventually(lambda: child.pids() == set(), "it is gone")
    await eventually(lambda: not child.bird.is_wanted, "nothing is wanted")
    assert not (child.folder / "bird.conf").exists()
    await started(child, configuration())
    assert len(child.pids()) == 1


@needs_bird
async def test_it_dies_with_the_agent_and_the_next_one_goes_on_as_before(child: Child) -> None:
    await started(child, configuration())
    child.task.cancel()
    await asyncio.gather(child.task, return_exceptions=True)
    await eventually(lambda: child.pids() == set(), "it is gone")
    other = Child(child.folder)
    try:
        await eventually(lambda: len(other.pids()) == 1, "one runs, though nobody said anything")
        assert other.bird.is_wanted
    finally:
        other.task.cancel()
        await asyncio.gather(other.task, return_exceptions=True)


async def test_without_bird_nothing_else_ends(tmp_path: Path) -> None:
    made = Bird(tmp_path / "bird", nothing_to_keep, program="no-such-bird")
    task = asyncio.create_task(made.run())
    made.want(configuration())
    await eventually(lambda: "can't be written and checked" in made.problem)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (tmp_path / "bird" / "bird.conf").write_text(configuration())  # an older image had one
    made = Bird(tmp_path / "bird", nothing_to_keep, program="no-such-bird")
    task = asyncio.create_task(made.run())
    await eventually(lambda: made.problem == "BIRD can't be started: there is no program no-such-bird")
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@needs_bird
async def test_one_that_doesn_t_answer_is_told_when_it_does(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_PATIENCE", 0.3)
    await started(child, configuration())
    (pid,) = child.pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        child.bird.want(configuration(number=64513))
        await eventually(lambda: "no answer" in child.bird.problem)
        assert not child.bird.is_current
    finally:
        os.kill(pid, signal.SIGCONT)
    await eventually(lambda: child.bird.is_current)
    assert await child.numbers() == [64513]
    assert child.pids() == {pid}


@needs_bird
async def test_a_file_that_can_t_be_written_is_written_later(child: Child) -> None:
    await started(child, configuration())
    before = child.pids()
    beside = child.folder / "bird.new"
    beside.mkdir()
    child.bird.want(configuration(number=64513))
    await eventually(lambda: "can't be written and checked" in child.bird.problem)
    beside.rmdir()
    await eventually(lambda: child.bird.is_current)
    assert (await child.numbers(), child.pids()) == ([64513], before)


@needs_bird
async def test_it_ends_too_when_it_begins_with_what_it_takes_last(child: Child) -> None:
    """As when it was dead at that moment, and left routes in the kernel."""
    child.bird.want("router id 192.0.2.1;\nprotocol device {}\n", ends=True)
    await eventually(lambda: not child.bird.is_wanted and child.pids() == set())


@needs_bird
async def test_one_that_is_wanted_again_while_it_ends_is_there(child: Child) -> None:
    await started(child, configuration())
    child.bird.want("router id 192.0.2.1;\nprotocol device {}\n", ends=True)
    await eventually(lambda: child.pids() == set())
    child.bird.want(configuration(number=64513))
    await eventually(lambda: child.bird.is_current and bool(child.pids()))
    await answers(child)
    assert await child.numbers() == [64513]


async def test_nobody_at_the_socket(tmp_path: Path) -> None:
    with pytest.raises(control.BirdError, match="can't be asked"):
        await control.ask(tmp_path / "none.ctl", "show status")


ANSWER = """Name       Proto      Table      State  Since         Info
kernel4    Kernel     master4    up     2026-11-30T15:23:29
  Channel ipv4
     Routes:         1 imported, 2 exported, 0 preferred

bgp4_192_0_2_2 BGP        ---        up     2026-11-30T15:23:30  Established
  Description:    node b
   BGP state:          Established
     Neighbor address: 192.0.2.2
     Neighbor AS:      64512
     Local AS:         64512
   Channel ipv4
     Routes:         3 imported, 1 exported, 3 preferred

bgp4_192_0_2_9 BGP        ---        start  2026-11-30T15:23:31  Active        Socket: Connection refused
  Description:    BGPPeer tor
   BGP state:          Active
     Neighbor address: 192.0.2.9
     Neighbor AS:      65001
     Last error:       Socket: Connection refused
   Channel ipv4
     State:          DOWN
"""
ROUTES = """Table master4:
10.1.0.64/26         unicast [bgp4_192_0_2_2 15:23:30.083] * (100) [i]
\tvia 192.0.2.2 on eth0
10.1.0.128/26        unicast [bgp4_192_0_2_9 15:23:30.083 from 192.0.2.9] * (100/?) [i]
\tvia 192.0.2.254 on eth0
10.1.0.192/26        unreachable [bgp4_192_0_2_9 15:23:30.083 from 192.0.2.9] * (100/-) [i]
"""


def test_what_is_read_of_sessions_and_routes() -> None:
    assert list(read_sessions(ANSWER.splitlines())) == [
        SessionState("bgp4_192_0_2_2", "node b", "192.0.2.2", 64512, "Established", "2026-11-30T15:23:30", 3, 1),
        SessionState(
            "bgp4_192_0_2_9", "BGPPeer tor", "192.0.2.9", 65001, "Active", "2026-11-30T15:23:31",
            error="Socket: Connection refused",
        ),
    ]  # fmt: skip
    assert dict(read_routes(ROUTES.splitlines())) == {
        "10.1.0.64/26": ("192.0.2.2", "bgp4_192_0_2_2"),
        "10.1.0.128/26": ("192.0.2.254", "bgp4_192_0_2_9"),
    }
