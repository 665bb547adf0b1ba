"""What the CNI specification says of requests, results and errors (spec 1.1.0, sections 2 to 5)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import BITS

Command = Literal["ADD", "DEL", "CHECK", "GC", "STATUS"]
COMMANDS: Final[tuple[Command, ...]] = ("ADD", "DEL", "CHECK", "GC", "STATUS")

# Section 5: error codes.
UNKNOWN_CONTAINER, INVALID_ENVIRONMENT, INVALID_CONFIG, TRY_LATER = 3, 4, 7, 11
NOT_AVAILABLE = 50
# From 100 on they are the plugin's.
REFUSED, WIRE, CHECK_FAILED = 100, 101, 102

GATEWAY = {4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee"}
_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


class CniError(Exception):
    """An answer that is an error: `code` as above, the message for people."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code, self.details = code, details

    def to_wire(self) -> dict[str, Any]:
        """Return the answer."""
        return {"error": {"code": self.code, "msg": str(self), "details": self.details}}


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the plugin.

    Attributes:
        args: CNI_ARGS by key.
        config: The network configuration.
        timeout: Seconds until the plugin gives up.
    """

    command: Command
    container: str
    netns: str
    ifname: str
    args: Mapping[str, str]
    config: Mapping[str, Any]
    timeout: float

    @property
    def pod(self) -> str:
        """The pod as `namespace/name`, or the container where no pod is named."""
        name = self.args.get("K8S_POD_NAME")
        return f"{self.args.get('K8S_POD_NAMESPACE', '')}/{name}" if name else f"container {self.container[:12]}"

    @property
    def attachments(self) -> set[tuple[str, str]]:
        """Container and interface of what the runtime still has (GC)."""
        listed = self.config.get("cni.dev/valid-attachments") or ()
        try:
            return {(str(one["containerID"]), str(one["ifname"])) for one in listed}
        except (TypeError, KeyError) as error:
            raise CniError(
                INVALID_CONFIG, "cni.dev/valid-attachments: must be a list of objects with containerID and ifname"
            ) from error


def read(data: bytes) -> Request:
    """Return the request that the plugin sent; raises CniError."""
    try:
        body = json.loads(data)
        command = body["command"]
        if command not in COMMANDS:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_COMMAND {command!r} is none of {', '.join(COMMANDS)}")
        pairs = [pair.partition("=") for pair in str(body.get("args") or "").split(";") if pair]
        return Request(
            command, str(body.get("containerID", "")), str(body.get("netns", "")), str(body.get("ifname", "")),
            {key: value for key, _, value in pairs}, dict(body.get("config") or {}), float(body.get("timeout") or 0),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CniError(
            INVALID_CONFIG, f"this is not a request of the tortie plugin ({error}); are plugin and agent of one version?"
        ) from error


def result(netns: str, ifname: str, host: str, macs: tuple[str, str], addresses: Sequence[Address]) -> dict[str, Any]:
    """Return the answer to ADD, in the shape of CNI 1.0.0; `macs` are the host's and the pod's."""
    interfaces = [{"name": host, "mac": macs[0]}, {"name": ifname, "mac": macs[1], "sandbox": netns}]
    ips = [{"address": f"{one}/{BITS[one.family]}", "gateway": GATEWAY[one.family], "interface": 1} for one in addresses]
    routes = [{"dst": _EVERYWHERE[one.family], "gw": GATEWAY[one.family]} for one in addresses]
    return {"interfaces": interfaces, "ips": ips, "routes": routes, "dns": {}}
