"""A ledger that is damaged, lost, old, or can't be written: the real agent on files and disks that are broken on purpose.

`DAMAGE` names what is done to the files while the agent is dead, and what comes of it. Whatever it is, no address of a pod that
runs goes out again, and that pod's DEL frees what it has. Crash points: a start dies between putting a file aside and making
a new one, which is a ledger that was lost; between the new epoch and the end of reading what was published, which the next
start goes on with; after a DEL that could not be recorded, which the next start finds as a record without a link.

A file that may not be read isn't among them: an agent is root. Broken bytes anywhere are in `test_ledger`.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.agent.acting import HEALTH_PORT, PYTHON, AgentNode, Failed
from tests.agent.namespaces import namespaces, needs_root, run
from tests.agent.test_agent import ask, published, traced
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import active, blocks, node, pool
from tests.scraped import Scraped

pytestmark = [needs_root, pytest.mark.usefixtures("operator")]
BLOCK = "10-1-0-0-26"


@pytest.fixture
def one(control_plane: ControlPlane, cluster: Kubectl, tmp_path: Path) -> Iterator[AgentNode]:
    """An agent with a block of 64 addresses, not started yet; its state is a disk of 4 MiB of its own."""
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: active(cluster, "a") == ["10.1.0.0/26"])
    with (
        namespaces(5) as (path, *pods),
        disk(tmp_path / "state"),
        closing(AgentNode("a", control_plane, tmp_path, path, pods)) as made,
    ):
        yield made


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def read_only(one: AgentNode, option: str = "ro") -> Path | None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(ledger(one).parent)], check=True)
    return None


def fill(one: AgentNode) -> Path:
    """Leave no room on the disk; return what took it."""
    ballast = ledger(one).with_name("ballast")
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def ledger(one: AgentNode, suffix: str = "") -> Path:
    return one.folder / "state" / f"ledger.db{suffix}"


def report(one: AgentNode) -> Any:
    return json.loads(ask(one, "report"))


def held(one: AgentNode) -> set[str]:
    return {allocation["address"] for allocation in report(one)["allocations"]}


def page(one: AgentNode, path: str) -> str:
    """Return status and text of a page, whatever its status."""
    program = (
        "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=10);"
        "c.request('GET', sys.argv[2]); r = c.getresponse(); print(r.status, r.read().decode())"
    )
    return run([str(PYTHON), "-c", program, str(HEALTH_PORT), path], one.path)


def said(one: AgentNode, name: str) -> float | None:
    return Scraped(page(one, "/metrics").partition(" ")[2]).value(f"tortie_agent_{name}")


def written_through(one: AgentNode) -> Path:
    """Return the ledger's file, with all that its log held."""
    with closing(sqlite3.connect(ledger(one))) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return ledger(one)


def whole(one: AgentNode) -> Path:
    """Return the file of an agent that is dead, without a log."""
    written_through(one)
    ledger(one, "-wal").unlink(missing_ok=True)
    return ledger(one)


def overwrite(path: Path, begin: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(content)


def sql(one: AgentNode, *statements: str) -> None:
    with closing(sqlite3.connect(whole(one), isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def foreign_log(one: AgentNode) -> None:
    """Put the log of some other database beside the file."""
    other = one.folder / "other.db"
    with closing(sqlite3.connect(other)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE something (is_else TEXT)")
        database.commit()
        shutil.copy(f"{other}-wal", ledger(one, "-wal"))


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


class Row(NamedTuple):
    """What is done; whether the file is put aside; whether it is the same ledger afterwards."""

    do: Callable[[AgentNode], object]
    aside: bool
    same: bool = False


DAMAGE = {
    "empty": Row(lambda one: whole(one).write_bytes(b""), aside=False),
    "gone": Row(lambda one: whole(one).unlink(), aside=False),
    "cut in the header": Row(lambda one: os.truncate(whole(one), 50), aside=True),
    "cut after a page": Row(lambda one: os.truncate(whole(one), 4096), aside=True),
    "cut in the middle": Row(lambda one: os.truncate(whole(one), whole(one).stat().st_size // 2), aside=True),
    "the header is another's": Row(lambda one: overwrite(whole(one), 0, b"not a database" * 8), aside=True),
    "a page of garbage": Row(lambda one: overwrite(whole(one), 4096, b"\xa5" * 4096), aside=True),
    "a folder": Row(lambda one: folder(whole(one)), aside=True),
    "the log is gone": Row(lambda one: ledger(one, "-wal").unlink(), aside=False),
    "the log is cut": Row(lambda one: os.truncate(ledger(one, "-wal"), 2000), aside=False),
    "the log is garbage": Row(lambda one: ledger(one, "-wal").write_bytes(b"\xa5" * 8192), aside=False),
    "the log is a folder": Row(lambda one: folder(ledger(one, "-wal")), aside=True),
    "the log is another's": Row(foreign_log, aside=False),  # SQLite takes it: the file is that other database
    "the index is garbage": Row(lambda one: ledger(one, "-shm").write_bytes(b"\xa5" * 32768), aside=False, same=True),
    "the index is gone": Row(lambda one: ledger(one, "-shm").unlink(), aside=False, same=True),
    "a later format": Row(lambda one: sql(one, "PRAGMA user_version = 2"), aside=True),
    "an earlier format": Row(lambda one: sql(one, "PRAGMA user_version = 0"), aside=False, same=True),
    "a table is another": Row(lambda one: sql(one, "DROP TABLE releases", "CREATE TABLE releases (x)"), aside=True),
    "an address is none": Row(lambda one: sql(one, "UPDATE allocations SET address = 'ten'  WHERE sequence = 1"), aside=True),
    "the count went back": Row(lambda one: sql(one, "UPDATE counter SET sequence = 1"), aside=True),
    "another node's": Row(lambda one: sql(one, "UPDATE meta SET value = 'b' WHERE key = 'node'"), aside=False),
    "a pod's record is lost": Row(lambda one: sql(one, "DELETE FROM allocations WHERE sequence = 1"), aside=False),
    "a record is another's": Row(lambda one: sql(one, "UPDATE allocations SET host = 'x' WHERE sequence = 1"), aside=False),
}


@pytest.mark.parametrize("row", DAMAGE)
def test_damaged_while_no_agent_ran(one: AgentNode, row: str) -> None:
    do, aside, same = DAMAGE[row]
    one.start()
    first = one.add(0)
    written_through(one)  # what comes now is in the log alone
    second, epoch = one.add(1), report(one)["epoch"]
    one.kill()
    do(one)
    one.start()
    third = one.add(2)
    assert len({*first, *second, *third}) == 3
    assert (report(one)["epoch"] == epoch) == same
    assert bool(list(ledger(one).parent.glob("*.damaged-*"))) == aside
    assert held(one) == {*first, *second, *third}
    one.cni("CHECK", 0)
    one.cni("DEL", 0)
    assert held(one) == {*second, *third}
    wait("it is whole again", lambda: page(one, "/readyz") == "200 ok\n")


def test_an_old_ledger_is_known_by_what_it_has_published(one: AgentNode, cluster: Kubectl) -> None:
    """A backup was restored: the kernel has no trace of a pod that came and went meanwhile, what is published has."""
    one.start()
    first, copy = one.add(0), one.folder / "copy"
    wait("it is published", lambda: published(cluster) == set(first))
    shutil.copy(written_through(one), copy)
    gone = one.add(1)
    one.cni("DEL", 1)
    sequence, epoch = report(one)["sequence"], report(one)["epoch"]
    wait("all is published", lambda: blocks(cluster)[0]["status"]["sequence"] == sequence)
    one.kill()
    shutil.copy(copy, whole(one))
    one.options = ("--cooldown", "1")
    one.start()
    wait("it is another ledger", lambda: blocks(cluster)[0]["status"]["epoch"] != epoch)
    assert "the ledger is an old one (change" in one.log.read_text()
    block = blocks(cluster)[0]
    assert block["status"]["free"] == 0, "the last one to go rests, and nobody knows which it was"
    wait("all have rested", lambda: blocks(cluster)[0]["status"]["free"] == 63)
    assert one.add(2) not in (first, gone), "the longest rested goes first"
    assert said(one, "ledger_lost") == 0


def test_a_rebuilt_ledger_waits_for_what_was_published(one: AgentNode, cluster: Kubectl, control_plane: ControlPlane) -> None:
    one.start()
    first, second, third = one.add(0), one.add(1), one.add(2)
    wait("it is published", lambda: published(cluster) == {*first, *second, *third})
    one.kill()
    links = [line.split("@")[0] for line in run(["ip", "-o", "-br", "link"], one.path).split("\n") if line.startswith("cali")]
    run(["ip", "link", "delete", links[0]], one.path)
    overwrite(whole(one), 0, b"not a database" * 8)
    control_plane.pause("kube-apiserver")
    try:
        one.start()
        with pytest.raises(
            Failed, match=r"the ledger was damaged \(file is not a database\).*is the API server away"
        ) as refused:
            one.cni("ADD", 3, waitSeconds=3)
        assert refused.value.code == 11
        with pytest.raises(Failed, match="no pod can start here: the ledger was damaged") as status:
            one.cni("STATUS", 0)
        assert status.value.code == 50
        assert page(one, "/readyz").startswith("503 not ready: the ledger was damaged")
        assert said(one, "ledger_lost") == 1
        one.cni("DEL", 1)
        one.kill()  # it goes on where it was
        one.start()
        assert page(one, "/readyz").startswith("503 not ready: the ledger was damaged")
    finally:
        control_plane.resume("kube-apiserver")
    assert one.add(3)[0] not in {*first, *second, *third}, "what is published rests, also the one without a link"
    one.cni("STATUS", 0)
    wait("it is whole again", lambda: page(one, "/readyz") == "200 ok\n")
    assert said(one, "ledger_lost") == 0


def test_four_damaged_files_are_three(one: AgentNode) -> None:
    one.start()
    for _ in range(4):
        one.kill()
        overwrite(whole(one), 0, b"not a database" * 8)
        one.start()
    assert len(list(ledger(one).parent.glob("*.damaged-*"))) == 3


UNWRITABLE: dict[str, Callable[[AgentNode], Path | None]] = {"full": fill, "read-only": read_only}


def churn(one: AgentNode) -> None:
    """Let pods come and go until the room that the log had left is used."""
    for number in range(500):
        one.cni("ADD", 2, f"more-{number}")
        one.cni("DEL", 2, f"more-{number}")


def test_a_disk_that_is_full_while_the_agent_runs(one: AgentNode) -> None:
    one.start()
    first, _ = one.add(0), one.add(1)
    ballast = fill(one)
    with pytest.raises(Failed, match=r"ledger\.db can't be written: database or disk is full; see that its disk") as refused:
        churn(one)
    assert refused.value.code == 11
    with pytest.raises(Failed, match=r"no pod can start here: .*full") as status:
        one.cni("STATUS", 0)
    assert status.value.code == 50
    assert page(one, "/readyz").startswith("503 not ready: ")
    assert said(one, "ledger_writable") == 0
    before = held(one)
    one.cni("DEL", 0)
    assert held(one) == before >= set(first), "it can't be recorded"
    assert len(run(["ip", "-br", "link"], one.path).split("cali")) == 2, "its link is gone"
    ballast.unlink()
    wait("it is freed", lambda: not held(one) & set(first), 20)
    one.cni("STATUS", 0)
    assert one.add(3) != one.add(1)


@pytest.mark.parametrize("row", UNWRITABLE)
def test_a_disk_that_can_t_be_written_when_the_agent_starts(one: AgentNode, row: str) -> None:
    one.start()
    first, second = one.add(0), one.add(1)
    one.kill()
    ledger(one, "-shm").unlink()  # as after a reboot: it must be made anew
    left = UNWRITABLE[row](one)
    one.start()
    with pytest.raises(Failed, match=r"no pod can start here: .*ledger\.db can't be opened") as refused:
        one.cni("ADD", 2)
    assert refused.value.code == 11
    with pytest.raises(Failed, match=r"no pod can start here: .*ledger\.db can't be opened") as status:
        one.cni("STATUS", 0)
    assert status.value.code == 50
    assert "can't be opened" in page(one, "/readyz")
    assert said(one, "ledger_writable") == 0
    with pytest.raises(subprocess.CalledProcessError) as asked:
        ask(one, "report")
    assert "can't be opened" in asked.value.stderr
    one.cni("DEL", 0)
    assert len(run(["ip", "-br", "link"], one.path).split("cali")) == 2, "its link is gone"
    if left:
        left.unlink()
    else:
        read_only(one, "rw")
    wait("it goes on", lambda: "ready: " in one.log.read_text().partition("can be opened again")[2])
    wait("what had no link is freed", lambda: held(one) == set(second))
    assert one.add(2) not in (first, second)
    one.cni("STATUS", 0)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing: apt-get install strace")
def test_a_disk_that_turns_read_only_while_the_agent_runs(one: AgentNode, tmp_path: Path) -> None:
    """As ext4 does after an error. A mount can't be made read-only while a file is open for writing, so strace plays it."""
    one.start()
    first = one.add(0)
    failing = "pwrite64,fdatasync,fsync,unlink,unlinkat,rename"
    with traced(one, tmp_path / "trace", "-e", f"trace={failing}", "-e", f"inject={failing}:error=EROFS"):
        with pytest.raises(Failed, match=r"its DEL of before can't be removed: .*Read-only file system") as refused:
            one.cni("ADD", 1)
        assert refused.value.code == 11
        with pytest.raises(Failed, match=r"no pod can start here: .*ledger\.db can't be written") as status:
            one.cni("STATUS", 0)
        assert status.value.code == 50
        one.cni("DEL", 0)
        assert "cali" not in run(["ip", "-br", "link"], one.path)
        assert held(one) == set(first)
        deferred = ledger(one).with_name("deferred")
        deferred.mkdir()
        (deferred / "bad.json").write_text("{")
        words = "the deferred DELs can't be read or removed: [Errno 30] Read-only file system"
        wait("the folder's state is said", lambda: words in one.log.read_text())
    wait("it is freed", lambda: held(one) == set())
    wait("the bad one is put aside", (deferred / "bad.broken").exists)
    assert one.add(1) != first


def test_a_ledger_that_is_damaged_while_it_is_used_ends_the_agent(one: AgentNode) -> None:
    """The next start puts it aside."""
    one.start()
    one.add(0)
    written_through(one)
    overwrite(ledger(one), 4096, b"\xa5" * (ledger(one).stat().st_size - 4096))
    with pytest.raises(Failed):
        one.cni("ADD", 1, waitSeconds=0)
    assert one.running[-1].wait(timeout=20) == 1
    assert "was damaged while it was in use: " in one.log.read_text()
    one.start()
    one.add(1)
    assert len(list(ledger(one).parent.glob("*.damaged-*[0-9]"))) == 1


def test_a_del_that_can_t_be_queued_fails_and_is_queued_when_there_is_room(one: AgentNode) -> None:
    one.start()
    one.add(0)
    one.kill()
    ballast = fill(one)
    with pytest.raises(Failed, match="agent is away, and DEL couldn't be queued for it") as refused:
        one.cni("DEL", 0)
    assert refused.value.code == 5
    assert list((ledger(one).parent / "deferred").glob("*")) == []
    ballast.unlink()
    one.cni("DEL", 0)
    one.start()
    assert held(one) == set()


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_jumps_changes_no_address_s_rest(one: AgentNode, cluster: Kubectl, days: int) -> None:
    """Sixteen addresses that rest two seconds: none goes out earlier, all come back, over a restart as well."""
    cluster.run("patch", "ippool", "pool", "--type=merge", "-p", '{"spec":{"disabled":true}}')
    cluster.apply(pool("small", cidr="10.2.0.0/31", blockSize=31))
    wait("its block", lambda: "10.2.0.0/31" in active(cluster, "a"))
    clock = one.folder / "clock"
    one.program = (str(PYTHON), "-m", "tests.agent.clock", str(clock))
    one.options = ("--cooldown", "2")
    clock.write_text("0")
    one.start()
    first, second = one.add(0), one.add(1)
    for pod, restarts in ((2, False), (3, True)):
        began = time.monotonic()
        one.cni("DEL", pod - 2)
        clock.write_text(str(days * 86400))
        if restarts:
            one.kill()
            one.start()
        assert one.add(pod, waitSeconds=60) == (second if restarts else first)
        assert time.monotonic() - began >= 2
        clock.write_text("0")
    now = datetime.now(UTC).isoformat()
    assert all((allocation["since"] > now) == (days > 0) for allocation in report(one)["allocations"]), "it was wrong indeed"
