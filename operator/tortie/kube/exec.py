"""A command run in a container, as `kubectl exec` does: over a websocket (KEP-4006, v5.channel.k8s.io, and v4 before it).

Belongs here: the channels and what becomes of the command. Does not: what is run, or input to it.
"""

from dataclasses import dataclass, field

import msgspec

from tortie.kube.client import Client
from tortie.kube.errors import ApiError, Unreachable
from tortie.kube.resource import Resource

PODS = Resource("", "v1", "pods", namespaced=True)
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDOUT, _STDERR, _ERROR = 1, 2, 3


# What the API server says of a node that it doesn't reach: with an answer of 5xx, or, when it has upgraded already, as the
# command's outcome (kubernetes apimachinery pkg/util/httpstream/spdy, apiserver pkg/util/proxy). No code tells it from others.
_UNREACHED = ("error sending request", "error dialing backend")


class ExecFailed(ApiError):
    """The command ended with another status than 0, or could not be started."""


class KubeletUnreachable(Unreachable):
    """The API server would have the command run, and didn't get through to the node."""

    way_out = "is that node up, and can the API server reach its kubelet's port (10250)?"


class _Outcome(msgspec.Struct):
    """The `metav1.Status` that the error channel carries when the command has ended."""

    status: str = "Failure"
    message: str = ""


@dataclass(slots=True)
class _Channels:
    text: dict[int, bytearray] = field(default_factory=lambda: {n: bytearray() for n in (_STDOUT, _STDERR, _ERROR)})

    def take(self, data: bytes) -> None:
        if data and data[0] in self.text:
            self.text[data[0]] += data[1:]


async def execute(
    client: Client, namespace: str, pod: str, container: str, command: list[str], *, seconds: float = 30.0
) -> bytes:
    """Return what a command prints in a container; `seconds` of silence end it (zero: never).

    Raises ApiError; KubeletUnreachable where the API server answers and the pod's node doesn't.
    """
    where = f"exec {' '.join(command)} in pod {namespace}/{pod}"
    query: list[tuple[str, str]] = [("container", container), ("stdout", "true"), ("stderr", "true")]
    query += [("command", word) for word in command]
    channels = _Channels()
    path = PODS.path(pod, namespace=namespace, subresource="exec")
    try:
        async with client.websocket(path, query, PROTOCOLS, idle=seconds) as messages:
            async for data in messages:
                channels.take(data)
    except Unreachable as error:
        if not error.status:
            raise
        raise _unreached(error.message, namespace, pod, where) from error
    outcome = _outcome(channels, where)
    if outcome.status == "Success":
        return bytes(channels.text[_STDOUT])
    if any(words in outcome.message for words in _UNREACHED):
        raise _unreached(outcome.message, namespace, pod, where)
    raise ExecFailed(channels.text[_STDERR].decode(errors="replace").strip() or outcome.message, where)


def _outcome(channels: _Channels, where: str) -> _Outcome:
    if not channels.text[_ERROR]:
        raise Unreachable("the connection ended before the command did", where)
    return msgspec.json.decode(bytes(channels.text[_ERROR]), type=_Outcome)


def _unreached(said: str, namespace: str, pod: str, where: str) -> KubeletUnreachable:
    return KubeletUnreachable(f"the API server can't reach the kubelet of pod {namespace}/{pod}: {said}", where)
