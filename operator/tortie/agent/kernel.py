"""The kernel's sockets that the firewall needs, and which of its parts are there.

Belongs here: what is opened together and closed together. Does not: what is asked of it (`tortie.agent.firewall`).
"""

import errno
import logging

from tortie.agent import nfnetlink as nf
from tortie.agent import rules
from tortie.agent.conntrack import Connections
from tortie.agent.drift import Drift
from tortie.agent.netlink import Closing, Netlink
from tortie.agent.nflog import PacketLog
from tortie.agent.nfnetlink import Socket
from tortie.agent.table import TABLE

_log = logging.getLogger(__name__)


class Kernel(Closing):
    """What the firewall asks, in the network namespace that the thread is in when it is made."""

    def __init__(self) -> None:
        self.tables, self.connections, self.links = Socket(), Connections(), Netlink()
        self.drift = Drift(TABLE, self.tables.port)
        self.masquerades = self._takes(nf.masquerade())
        self.log: PacketLog | None = None
        try:
            if not self.tables.takes(*rules.LOGGING):
                raise OSError(errno.EOPNOTSUPP, "the kernel has no nft_log or nft_limit")  # noqa: TRY301 - said as the other
            self.log = PacketLog(rules.LOG_GROUP, rules.LOG_LENGTH)
        except OSError as error:
            _log.error(
                "denials can't be logged: %s; has the kernel nfnetlink_log, and does nobody else listen to its group %d?",
                error, rules.LOG_GROUP,
            )  # fmt: skip

    def _takes(self, expression: bytes) -> bool:
        try:
            return self.tables.takes(expression)
        except OSError:  # what can't be asked is tried
            return True

    def counts(self) -> bool:
        """Whether the kernel can count policies' packets; raises OSError."""
        return self.tables.takes(nf.counted(nf.TRIED))

    def close(self) -> None:
        """Close it all."""
        for one in (self.tables, self.connections, self.links, self.drift, self.log):
            if one is not None:
                one.close()
