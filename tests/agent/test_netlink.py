"""Netlink against the real kernel: an answer that comes late, a list that is refused, a table that isn't there."""

import errno
import sys
from collections.abc import Iterator

import pytest
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from tests.agent.namespaces import namespaces, needs_root, run
from tortie.agent import netlink
from tortie.agent.netlink import AF, Netlink

_LOOPBACK, _NOBODY = 1, 2**30


@pytest.fixture
def kernel() -> Iterator[Netlink]:
    with Netlink() as made:
        yield made


def question() -> netlink.Message:
    return netlink._request(ifinfmsg, netlink._GETLINK, 0, [("IFLA_EXT_MASK", netlink._SKIP_STATS)], index=_LOOPBACK)


def test_the_answer_to_another_question_is_none(kernel: Netlink) -> None:
    """Whoever asked gave up before it came."""
    late = question()
    late.encode()
    kernel._socket.send(bytes(late.data))
    assert len(kernel.ask(question())) == 1


def test_a_list_that_the_kernel_ends_by_an_error_is_no_empty_one(kernel: Netlink) -> None:
    request = netlink._request(ifaddrmsg, netlink._GETADDR, netlink._DUMP, [], index=_NOBODY, family=AF[4])
    with pytest.raises(NetlinkError) as refused:
        kernel._list(ifaddrmsg, request, lambda _body: True)
    assert refused.value.code == errno.ENODEV


@needs_root
def test_a_namespace_that_never_had_a_route_has_none() -> None:
    with namespaces(2) as (_, path):
        run([sys.executable, "-c", "from tortie.agent import forwarding; assert forwarding.routes() == []"], path)
