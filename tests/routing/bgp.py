"""A small cluster of BGP speakers, and objects as people write them: `KIND/NAME: spec`, one a line."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from tortie.addressing.ranges import parse
from tortie.api import bgp_input, lean
from tortie.routing import bird, peering
from tortie.routing.bird import Advertised, Plan
from tortie.routing.peering import Objects, Problems, Session, Speaker

KINDS: dict[str, type[msgspec.Struct]] = {
    "BGPConfiguration": bgp_input.Configuration,
    "BGPPeer": bgp_input.Peer,
    "BGPFilter": bgp_input.Filter,
    "Service": bgp_input.Service,
    "EndpointSlice": bgp_input.EndpointSlice,
}
SECRETS = {("bgp", "mesh"): "of the mesh\n", ("bgp", "tor"): "s3cret", ("bgp", "quoted"): 'a";b', ("bgp", "long"): "x" * 81}
BIRD = shutil.which("bird", path="/usr/sbin:/usr/bin:/sbin:/bin")


class Row(NamedTuple):
    """Objects; what a node has with them and words that are nowhere; what is wrong, by where.

    Attributes:
        here: The node.
        clusters: Whose routes nodes reflect, by node.
        plan: Parts of the node's plan that objects don't say.
    """

    written: str
    has: tuple[str, ...] = ()
    hasnt: tuple[str, ...] = ()
    wrong: dict[str, str] = {}  # noqa: RUF012 - a tuple's default
    here: str = "a"
    clusters: dict[str, str] = {}  # noqa: RUF012
    plan: dict[str, Any] = {}  # noqa: RUF012


# What the nodes' agents say: a and b share a subnet, c is in another and of another AS, d has no IPv6 address.
NETWORKS = """
a: {addresses: [192.0.2.1/24, "2001:db8::1/64"], bgp: {asNumber: 64512, labels: [rack=1, kubernetes.io/hostname=a]}}
b: {addresses: [192.0.2.2/24, "2001:db8::2/64"], bgp: {asNumber: 64512, labels: [rack=1, reflector=]}}
c: {addresses: [198.51.100.3/24, "2001:db8:1::3/64"], bgp: {asNumber: 64513, port: 1179, labels: [rack=2]}}
d: {addresses: [192.0.2.4/24], bgp: {asNumber: 64512, labels: [rack=2, reflector=]}}
silent: {addresses: [192.0.2.5/24]}
"""
POOLS = (Advertised(parse("10.1.0.0/16"), 26), Advertised(parse("fd00:10:1::/48"), 122))


class Written(NamedTuple):
    """Objects by kind; `raw` as they were written: kind, name and body."""

    raw: tuple[tuple[str, str, dict[str, Any]], ...]
    of: dict[str, tuple[Any, ...]]

    @property
    def objects(self) -> Objects:
        """What people wrote about BGP."""
        return Objects(self.of["BGPConfiguration"], self.of["BGPPeer"], self.of["BGPFilter"])


def read(text: str) -> Written:
    """Return the objects of `KIND/NAME: {spec}` lines; a Service's or EndpointSlice's line is its whole body."""
    raw = list[tuple[str, str, dict[str, Any]]]()
    for key, body in (yaml.safe_load(text) or {}).items():
        kind, name = key.split("/", 1)
        raw.append((kind, name, body if kind in ("Service", "EndpointSlice") else {"spec": body}))
    of = {
        kind: tuple(
            msgspec.convert(
                {**body, "metadata": {"name": name, "namespace": "default", **body.get("metadata", {})}}, type=struct
            )
            for its, name, body in raw
            if its == kind
        )
        for kind, struct in KINDS.items()
    }
    return Written(tuple(raw), of)


def speakers(text: str = NETWORKS, clusters: dict[str, str] | None = None) -> dict[str, Speaker]:
    """Return the nodes that speak, by name; `clusters`: which of them reflect routes, and whose."""
    found = dict[str, Speaker]()
    for name, status in yaml.safe_load(text).items():
        network = msgspec.convert({"metadata": {"name": name}, "status": status}, type=lean.Network)
        speaker = peering.speaker_of(network)
        if speaker:
            found[name] = speaker._replace(cluster_id=(clusters or {}).get(name, speaker.cluster_id))
    return found


def sessions(written: Written, here: str = "a", clusters: dict[str, str] | None = None) -> tuple[list[Session], Problems]:
    """Return a node's sessions in the small cluster, and what is wrong."""
    nodes = speakers(clusters=clusters)
    return peering.sessions(written.objects, nodes[here], nodes.values(), SECRETS)


def configured(written: Written, here: str = "a", clusters: dict[str, str] | None = None, **more: Any) -> tuple[str, Problems]:
    """Return a node's configuration of BIRD, and what is wrong."""
    found, problems = sessions(written, here, clusters)
    own = speakers(clusters=clusters)[here]
    plan: dict[str, Any] = {
        "spec": peering.configuration(written.objects, here),
        "reflects": bool(own.cluster_id),
        "blocks": (parse("10.1.0.64/26"), parse("fd00:10:1::40/122")),
        "pools": POOLS,
        "sessions": tuple(found),
        "filters": written.objects.filters,
    }
    text, wrong = bird.render(Plan(here, "192.0.2.1", **{**plan, **more}))
    return text, problems | wrong


def refused(text: str, folder: Path) -> str:
    """Return why BIRD refuses a configuration, "" where it takes it."""
    assert BIRD
    path = folder / "bird.conf"
    path.write_text(text)
    done = subprocess.run([BIRD, "-p", "-c", str(path)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    number = done.stderr.removeprefix(f"bird: {path}:").split(":")[0]
    line = text.splitlines()[int(number) - 1] if number.isdigit() else ""
    return f"{done.stderr.strip()} in: {line}"
