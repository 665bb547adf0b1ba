"""What is freed at a start, and what is not, row by row."""

from pathlib import Path

import pytest

from tests.agent.test_ledger import ANY4, V4, link
from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import parse
from tortie.addressing.wants import UsablePool
from tortie.agent.demand import AGAIN, KEEP, Demand
from tortie.agent.ledger import Exhausted, Ledger
from tortie.agent.start import reconcile

# In the kernel, namespace there, boot's id afterwards: whether the address is freed.
ROWS = {
    "the pod runs": (True, True, "one", False),
    "its link is gone, its namespace isn't": (False, True, "one", False),
    "both are gone": (False, False, "one", True),
    "booted since, something has the namespace's path": (False, True, "two", True),
}


@pytest.mark.parametrize("row", ROWS)
async def test_start(row: str, tmp_path: Path) -> None:
    in_kernel, there, boot, freed = ROWS[row]
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.put_block(V4)
    await reconcile(ledger, {}, "one", "a")
    netns = tmp_path / "netns"
    netns.touch()
    one = link(1, netns=str(netns if there else tmp_path / "gone"))
    (entry,) = await ledger.allocate(one, [ANY4])
    kernel: dict[str, list[Address]] = {one.host: [entry.address]} if in_kernel else {}
    await reconcile(ledger, kernel, boot, "a")
    assert bool(ledger.find(one.host)) != freed
    await ledger.close()


async def test_what_rested_rests_in_the_epoch_that_follows(tmp_path: Path) -> None:
    """A link that is on no record shows that records are missing; blocks are known by what they publish, then."""
    ledger = Ledger(tmp_path / "ledger.db", cooldown=0)
    await ledger.put_block(V4)
    await ledger.allocate(link(1), [ANY4])
    (rests,) = await ledger.release(link(1).host)
    epoch = ledger.epoch
    await reconcile(ledger, {"stranger": [address("10.0.0.4")], "empty": []}, "one", "a")
    assert ledger.epoch != epoch
    assert "1 links have addresses" in ledger.lost
    with pytest.raises(Exhausted):
        await ledger.allocate(link(2), [ANY4])
    await ledger.put_block(V4)
    given = [(await ledger.allocate(link(number), [ANY4]))[0].address for number in range(2, 8)]
    assert not {rests.address, address("10.0.0.4")} & set(given)
    with pytest.raises(Exhausted):
        await ledger.allocate(link(9), [ANY4])
    await ledger.close()


async def test_a_link_has_what_the_kernel_says_whatever_the_records_say(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.put_block(V4)
    (first,), (second,) = [await ledger.allocate(link(number), [ANY4]) for number in (1, 2)]
    await reconcile(ledger, {link(1).host: [second.address], link(2).host: []}, "one", "a")
    assert [entry.address for entry in ledger.find(link(1).host)] == [first.address, second.address]
    assert ledger.find(link(1).host)[1].link == link(1)
    assert ledger.find(link(2).host) == ()
    await ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert {e.address for entries in again.links() for e in entries} == {first.address, second.address}
    await again.close()


async def test_pools_are_asked_for_while_pods_use_them_and_a_while_longer(tmp_path: Path) -> None:
    clock, told = [0.0], list[str]()
    ledger = Ledger(tmp_path / "ledger.db")
    demand = Demand(ledger, lambda: told.append("changed"), lambda: clock[0])
    known = [UsablePool("pool", parse("10.0.0.0/16")), UsablePool("special", parse("10.1.0.0/16"), automatic=False)]
    demand.ask(["special"])
    demand.ask(["special"])
    assert (demand.pools(known), told) == (("special",), ["changed"])
    clock[0] = KEEP
    assert demand.pools(known) == ()
    await ledger.put_block(V4)
    await ledger.allocate(link(1), [ANY4])
    assert demand.pools(known) == (), "every node has blocks of this one"
    special = [UsablePool("pool", parse("10.0.0.0/16"), automatic=False)]
    assert demand.pools(special) == ("pool",), "as after a restart: it is in use"
    await ledger.release(link(1).host)
    demand.ask(["pool"])
    clock[0] += KEEP - 1
    assert demand.pools(special) == ("pool",)
    clock[0] += 1
    assert demand.pools(special) == ()
    await ledger.close()


async def test_a_pod_waits_until_it_is_served_or_its_runtime_asks_no_more(tmp_path: Path) -> None:
    clock, told = [0.0], list[str]()
    ledger = Ledger(tmp_path / "ledger.db")
    demand = Demand(ledger, lambda: told.append("changed"), lambda: clock[0])
    demand.wait("shop/one", ["pool", "other"], 60)
    demand.wait("shop/two", ["pool"], 60)
    assert (demand.short(), told) == (("other", "pool"), ["changed"])
    demand.served("shop/one")
    assert (demand.short(), len(told)) == (("pool",), 2)
    demand.served("shop/three")
    assert (demand.short(), len(told)) == (("pool",), 2), "it never waited"
    clock[0] = 60 + AGAIN - 1
    assert demand.short() == ("pool",), "its ADD has failed, and the next one is about to come"
    clock[0] += 1
    assert demand.short() == ()
    await ledger.close()
