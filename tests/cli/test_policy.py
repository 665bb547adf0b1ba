"""`tortiectl policy` on manifests: what it says word for word, what it refuses, and what it stands in for."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from tortie.cli.ctl.main import main

PEOPLE = """
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: InternalIP, address: "fd01::1"}]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {namespace: a, name: web, labels: {app: web}}, spec: {nodeName: n1}, status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: a, name: db, labels: {app: db}}, spec: {nodeName: n2}, status: {podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: a, name: six, labels: {app: six}}, spec: {nodeName: n2}, status: {podIPs: [{ip: "fd00::6"}]}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: a, name: four, labels: {app: four}}, spec: {nodeName: n2}, status: {podIP: 10.0.0.4}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: a, name: done, labels: {app: db}}, spec: {nodeName: n2}, status: {phase: Succeeded}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: b, name: host}, spec: {nodeName: n1, hostNetwork: true}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: b, name: new}, spec: {nodeName: n2}}
- {apiVersion: v1, kind: Pod, metadata: {name: of-default}, spec: {nodeName: n2}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: a, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}
  - {from: [{ipBlock: {cidr: 10.0.0.4/32}}], ports: [{port: 53, protocol: UDP}]}
  - {from: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{port: 90}]}
"""  # noqa: E501 - a pod a line


@pytest.fixture
def people(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "people.yaml").write_text(PEOPLE)
    return tmp_path


def asked(*words: str) -> Result:
    result = CliRunner().invoke(main, ["policy", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


ISOLATED = "denied by NetworkPolicy a/db: isolated for Ingress, and no rule accepts it"
EXPLAINED = {
    "a/web a/db 80/TCP": """\
Allowed: a/web to a/db, 80/TCP
  out of a/web: allowed: no policy decides
  into a/db: allowed by NetworkPolicy a/db ingress[0]""",
    "a/web a/db 81": f"""\
Denied: a/web to a/db, 81/TCP
  out of a/web: allowed: no policy decides
  into a/db: {ISOLATED}""",
    "a/four a/db 53/udp": """\
Allowed: a/four to a/db, 53/UDP
  out of a/four: allowed: no policy decides
  into a/db: allowed by NetworkPolicy a/db ingress[1]""",
    "a/web a/db 90": f"""\
Allowed: a/web to a/db, 90/TCP
by IPv4: Allowed
  out of a/web: allowed: no policy decides
  into a/db: allowed by NetworkPolicy a/db ingress[2]
by IPv6: Denied
  out of a/web: allowed: no policy decides
  into a/db: {ISOLATED}""",
    "10.0.0.1 a/db 80": """\
Allowed: a/web (10.0.0.1) to a/db, 80/TCP
  out of a/web (10.0.0.1): allowed: no policy decides
  into a/db: allowed by NetworkPolicy a/db ingress[0]""",
    "192.168.0.1 a/db 80": f"""\
Denied: 192.168.0.1 (node n1) to a/db, 80/TCP
  out of 192.168.0.1 (node n1): allowed: it is no pod with an address of its own, so no policy is about it
  into a/db: {ISOLATED}""",
    "192.168.0.1 a/web 80": """\
Allowed: 192.168.0.1 (node n1) to a/web, 80/TCP
  out of 192.168.0.1 (node n1): allowed: it is no pod with an address of its own, so no policy is about it
  into a/web: allowed: a pod's own node always reaches it""",
    "8.8.8.8 a/db 80": f"""\
Denied: 8.8.8.8 (no pod and no node) to a/db, 80/TCP
  out of 8.8.8.8 (no pod and no node): allowed: it is no pod with an address of its own, so no policy is about it
  into a/db: {ISOLATED}""",
    "b/host a/db 80": f"""\
Denied: b/host to a/db, 80/TCP
  out of b/host: allowed: it is no pod with an address of its own, so no policy is about it
  into a/db: {ISOLATED}
Note: b/host is in its node's network: no policy holds for it, and to others it is its node's address""",
    "b/host a/web 80": """\
Allowed: b/host to a/web, 80/TCP
  out of b/host: allowed: it is no pod with an address of its own, so no policy is about it
  into a/web: allowed: a pod's own node always reaches it
Note: b/host is in its node's network: no policy holds for it, and to others it is its node's address""",
    "a/db a/db 1": """\
Allowed: a/db to a/db, 1/TCP
  out of a/db: allowed: a pod always reaches itself
  into a/db: allowed: a pod always reaches itself""",
    "a/done a/db 80": """\
Denied: a/done to a/db, 80/TCP
Note: a/done has ended (Succeeded): nothing runs there that could talk""",
    "a/four a/six 80": """\
Denied: a/four to a/six, 80/TCP
Note: they have no address family in common""",
    "b/new default/of-default 80": """\
Allowed: b/new to default/of-default, 80/TCP
  out of b/new: allowed: no policy decides
  into default/of-default: allowed: no policy decides
Note: b/new has no address yet: 240.0.0.2 and fd74:6f72:7469::2 stand in
Note: default/of-default has no address yet: 240.0.0.3 and fd74:6f72:7469::3 stand in""",
}


@pytest.mark.parametrize("row", EXPLAINED)
def test_explained(people: Path, row: str) -> None:
    source, target, port = row.split()
    result = asked("explain", "-f", str(people), "--from", source, "--to", target, "--port", port)
    assert (result.stdout, result.stderr, result.exit_code) == (f"{EXPLAINED[row]}\n", "", 0)


def test_explained_to_programs(people: Path) -> None:
    line = ("explain", "-f", str(people), "--from", "a/web", "--to", "10.0.0.2", "--port", "90", "-o", "json")
    assert json.loads(asked(*line).stdout) == {
        "from": "a/web", "to": "10.0.0.2", "port": 90, "protocol": "TCP", "allowed": True, "notes": [],
        "families": [
            {
                "family": "IPv4", "from": "10.0.0.1", "to": "10.0.0.2", "allowed": True,
                "egress": {"allowed": True, "why": "no policy decides", "policies": []},
                "ingress": {"allowed": True, "why": "Accept", "policies": ["NetworkPolicy a/db ingress[2]"]},
            }
        ],
    }  # fmt: skip


def test_what_stands_in_is_nobody_else_s(tmp_path: Path) -> None:
    given = "{apiVersion: v1, kind: Pod, metadata: {name: given}, spec: {nodeName: n}, status: {podIP: 240.0.0.1}}"
    new = "{apiVersion: v1, kind: Pod, metadata: {name: new}, spec: {nodeName: n}}"
    node = "{apiVersion: v1, kind: Node, metadata: {name: n}, status: {addresses: [{type: InternalIP, address: 240.0.0.2}]}}"
    (tmp_path / "pods.yaml").write_text("\n---\n".join([new, given, node]))
    line = ("explain", "-f", str(tmp_path), "--from", "default/new", "--to", "default/given", "--port", "80", "-o", "json")
    (family,) = json.loads(asked(*line).stdout)["families"]
    assert (family["from"], family["to"]) == ("240.0.0.3", "240.0.0.1")


NOT_ASKED = {
    "a pod that isn't there": ("a/wob a/db 80", "there is no pod a/wob; is it a/web"),
    "another namespace": ("b/web a/db 80", "there is no pod b/web; is it a/web"),
    "no namespace": ("web a/db 80", "'web' is neither NAMESPACE/POD nor an IP address; is it a/web"),
    "like nothing": ("a/db x/y 80", "there is no pod x/y; there are a/web, a/db, a/six and others"),
    "a port's name": ("a/web a/db http", "'http' is no port; write one such as 80/TCP, with TCP, UDP, SCTP"),
    "a port too high": ("a/web a/db 65536", "'65536' is no port"),
    "another protocol": ("a/web a/db 0/ICMP", "'0/ICMP' is no port"),
}


@pytest.mark.parametrize("row", NOT_ASKED)
def test_a_question_that_can_t_be_asked(people: Path, row: str) -> None:
    words, said = NOT_ASKED[row]
    source, target, port = words.split()
    result = asked("explain", "-f", str(people), "--from", source, "--to", target, "--port", port)
    assert said in result.stderr
    assert result.exit_code == 2


def test_the_table(people: Path) -> None:
    line = ("matrix", "-f", str(people), "--port", "90/TCP")
    result = asked(*line, "-o", "json")
    rows = json.loads(result.stdout)
    assert rows[1] == {"from": "a/db", "to": "a/four", "allowed": True}
    shut = [(row["from"], row["to"]) for row in rows if not row["allowed"]]
    assert shut == [
        ("a/four", "a/six"), ("a/six", "a/db"), ("a/six", "a/four"),
        ("b/host", "a/db"), ("b/new", "a/db"), ("default/of-default", "a/db"),
    ]  # fmt: skip
    assert result.stderr == (
        "Warning: left out, as they have ended: a/done\n"
        "Warning: open by one family of addresses alone: a/web to a/db, the first of 1 such pairs; explain says why\n"
    )
    assert (
        asked(*line).stdout
        == """\
   FROM                TO 1 2 3 4 5 6 7
1  a/db                   + + + + + + +
2  a/four                 + + . + + + +
3  a/six                  . . + + + + +
4  a/web                  + + + + + + +
5  b/host                 . + + + + + +
6  b/new                  . + + + + + +
7  default/of-default     . + + + + + +
+ allowed, . denied
"""
    )


HEAD = {
    "NetworkPolicy": "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: x}, spec: {%s}}",
    "ClusterNetworkPolicy": (
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: x}, spec: {%s}}"
    ),
}


def np(spec: str) -> str:
    return HEAD["NetworkPolicy"] % spec


def cnp(spec: str) -> str:
    return HEAD["ClusterNetworkPolicy"] % spec


def peer(text: str) -> str:
    text = text.replace("NOT_XY", "{key: app, operator: NotIn, values: [x, y]}")
    return np(f"podSelector: {{}}, ingress: [{{from: [{text}]}}]")


def port(text: str) -> str:
    return np(f"podSelector: {{}}, egress: [{{ports: [{text}]}}]")


def wide(rule: str, head: str = "tier: Admin, priority: 1, subject: {namespaces: {}}") -> str:
    rule = rule.replace("TO_ALL", "to: [{namespaces: {}}]").replace(
        "TO_WEB", "to: [{pods: {podSelector: {matchLabels: {app: web}}}}]"
    )
    return cnp(f"{head}, egress: [{rule}]")


REFUSED = {
    "no YAML": ("a: [", "document 1 can't be read as YAML or JSON"),
    "no object": ("[1, 2]", "document 1 is no Kubernetes object: it has no kind"),
    "no name": ("{apiVersion: v1, kind: Pod, metadata: {}}", "document 1: Pod: metadata: missing required field `name`"),
    "no metadata": ("{apiVersion: v1, kind: Pod}", "document 1: Pod: missing required field `metadata`"),
    "no apiVersion": ("{kind: Pod, metadata: {name: p}}", "Pod p: apiVersion is missing; write apiVersion: v1"),
    "a name in capitals": ("{apiVersion: v1, kind: Pod, metadata: {name: P}}", "metadata.name: 'P' is no name"),
    "a label that is a number": (
        "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {a: 1}}}",
        "Pod p: metadata.labels[...]: expected `str`, got `int`",
    ),
    "a label's value": ("{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {a: b c}}}", "labels.a: 'b c' is no label's"),
    "a pod's address": (
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, status: {podIP: 10.0.0}}",
        "status.podIPs[0].ip: '10.0.0' is no IP address; write one such as 10.1.0.7, or leave it out",
    ),
    "in a list": (
        "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {}}]}", "document 1, item 1: Pod: metadata",
    ),
    "a second document": ("{apiVersion: v1, kind: Node, metadata: {name: n}}\n---\n[]", "document 2 is no Kubernetes object"),
    "a field that isn't there": (
        np("podSelector: {}, ingress: [{form: []}]"), "a/x: spec.ingress[0].form is no field; there are from, ports",
    ),
    "a CIDR": (peer("{ipBlock: {cidr: 10.0.0.0/33}}"), "from[0].ipBlock.cidr: '10.0.0.0/33' is no CIDR; write one such as"),
    "an address for a CIDR": (peer("{ipBlock: {cidr: 10.0.0.1}}"), "from[0].ipBlock.cidr: '10.0.0.1' is no CIDR"),
    "an except outside": (
        peer("{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}"), "ipBlock.except[0]: '11.0.0.0/8' is no part of 10.0.0.0/8",
    ),
    "a block and a selector": (peer("{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}"), "from[0]: ipBlock stands beside"),
    "a peer that is null": (peer("{podSelector: null}"), "spec.ingress[0].from[0]: it names nobody; write podSelector"),
    "an operator": (peer("{podSelector: {matchExpressions: [{key: a, operator: Is}]}}"), "operator: 'Is' is none of In, NotIn"),
    "In without values": (peer("{podSelector: {matchExpressions: [{key: a, operator: In}]}}"), "values: In takes one"),
    "a port in quotes": (port('{port: "80"}'), "spec.egress[0].ports[0].port: '80' is no port's name"),
    "a port too high": (port("{port: 65536}"), "ports[0].port: 65536 is no port; one is 1 to 65535"),
    "an end of a name": (port("{port: http, endPort: 90}"), "ports[0].endPort: 90 needs a port by number"),
    "an end below": (port("{port: 80, endPort: 79}"), "ports[0].endPort: 79 lies below port 80; swap them"),
    "a protocol": (port("{protocol: tcp}"), "ports[0].protocol: 'tcp' is none of TCP, UDP, SCTP"),
    "a policyType": (np("podSelector: {}, policyTypes: [ingress]"), "policyTypes[0]: 'ingress' is none of Ingress, Egress"),
    "a tier": (wide("{action: Deny, TO_ALL}", "tier: Top, priority: 1, subject: {namespaces: {}}"), "tier: 'Top' is none of"),
    "a priority": (
        wide("{action: Deny, TO_ALL}", "tier: Admin, priority: 1001, subject: {namespaces: {}}"),
        "spec.priority: 1001 is none of 0 to 1000; lower ones go first",
    ),
    "no subject": (wide("{action: Deny, TO_ALL}", "tier: Admin, priority: 1, subject: {}"), "subject: it takes one of"),
    "an action": (wide("{action: Allow, TO_ALL}"), "egress[0].action: 'Allow' is none of Accept, Deny, Pass"),
    "no peer": (wide("{action: Deny}"), "spec.egress[0].to: it has 0, and may have 1 to 25"),
    "a network": (wide("{action: Deny, to: [{networks: [x]}]}"), "egress[0].to[0].networks[0]: 'x' is no CIDR"),
    "two protocols in one": (
        wide("{action: Deny, TO_ALL, protocols: [{tcp: {}, udp: {}}]}"), "protocols[0]: it is of one kind",
    ),
    "a range": (
        wide("{action: Deny, TO_ALL, protocols: [{tcp: {destinationPort: {range: {start: 9, end: 8}}}}]}"),
        "destinationPort.range.end: 8 lies below start 9; swap them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused_is_named_with_the_way_out(tmp_path: Path, row: str) -> None:
    text, said = REFUSED[row]
    (tmp_path / "bad.yaml").write_text(text)
    result = asked("lint", "-f", str(tmp_path))
    assert f"{tmp_path}/bad.yaml, document" in result.stderr
    assert said in result.stderr
    assert result.exit_code == 1


def test_nothing_to_read(tmp_path: Path) -> None:
    assert "has no file that ends in .yaml" in asked("lint", "-f", str(tmp_path)).stderr
    assert "can't be read: No such file" in asked("lint", "-f", f"{tmp_path}/none").stderr


POD = "{apiVersion: v1, kind: Pod, metadata: {name: p}}"
WARNED = {
    "what makes pods": ("{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}", "no pods are made of Deployment d"),
    "another's policy": (
        "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c}}", "not read: CiliumNetworkPolicy c (cilium",
    ),
    "Calico's of the same name": (
        "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: c}}", "not read: NetworkPolicy c (",
    ),
    "twice": (f"{POD}\n---\n{POD}", "Pod p is in "),
    "a peer that can't be kept": (
        wide("{action: Deny, to: [{domainNames: [example.org]}]}"),
        "ClusterNetworkPolicy x: spec.egress[0]: a peer of kind 'domainNames' can't be kept; it denies everything until that",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", WARNED)
def test_what_is_warned_of(tmp_path: Path, row: str) -> None:
    text, said = WARNED[row]
    (tmp_path / "odd.yaml").write_text(text)
    result = asked("matrix", "-f", str(tmp_path), "--port", "80")
    assert result.exit_code == 0
    assert f"Warning: {said}" in result.stderr


class Case(NamedTuple):
    """Policies, and what is found in them: kind, field, and a part of what is said."""

    policies: str
    found: tuple[tuple[str, str, str], ...] = ()


LINTED = {
    "nothing": Case(np("podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]")),
    "selects nothing": Case(
        np("podSelector: {matchLabels: {app: nobody}}"),
        (("selects-nothing", "spec.podSelector", "pods with app=nobody in namespace a"),),
    ),
    "a subject's namespaces": Case(
        cnp("tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: none}}}"),
        (("selects-nothing", "spec.subject", "every pod in namespaces with team=none"),),
    ),
    "a peer": Case(
        peer("{namespaceSelector: {}, podSelector: {matchExpressions: [NOT_XY, {key: zone, operator: Exists}]}}"),
        (("peer-matches-nothing", "spec.ingress[0].from", "it names pods with app notin (x,y),zone, and there is none"),),
    ),
    "host-network pods aren't peers": Case(
        peer("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: hosts}}}"),
        (("peer-matches-nothing", "spec.ingress[0].from", "hosts"),),
    ),
    "a named port of the subject": Case(
        np("podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}, {port: pg}]}]"),
        (("port-unnamed", "spec.ingress[0].ports", "no pod that it selects calls a port pg of TCP"),),
    ),
    "a named port of the peers": Case(
        np("podSelector: {}, egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}, {port: pg}]}]"),
        (("port-unnamed", "spec.egress[0].ports", "no pod that it names as a peer calls a port pg"),),
    ),
    "a block with pods": Case(
        peer("{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.2/32]}}"),
        (("block-covers-cluster", "spec.ingress[0].from", "its CIDRs hold addresses of the cluster: pod a/web (10.0.0.1)"),),
    ),
    "a block with a node": Case(
        peer("{ipBlock: {cidr: 192.168.0.0/16}}"), (("block-covers-cluster", "spec.ingress[0].from", "node n1 (192.168.0.1)"),)
    ),
    "a block with no more than stand-ins": Case(peer("{ipBlock: {cidr: 240.0.0.0/4}}")),
    "egress without its type": Case(
        np("podSelector: {}, policyTypes: [Ingress], egress: [{}]"), (("rules-unused", "spec.egress", "has no Egress"),)
    ),
    "an earlier rule": Case(
        wide("{action: Deny, TO_ALL}, {action: Accept, TO_WEB}"),
        (("rule-shadowed", "spec.egress[1]", "ClusterNetworkPolicy x egress[0] decides first (Deny)"),),
    ),
    "a Pass of the same tier": Case(
        wide("{action: Pass, to: [{namespaces: {}}]}, {action: Accept, to: [{namespaces: {}}]}"),
        (("rule-shadowed", "spec.egress[1]", "decides first (Pass)"),),
    ),
    "an earlier rule for fewer": Case(
        wide("{action: Deny, TO_WEB}, {action: Accept, TO_ALL}"),
    ),
    "an earlier rule for other ports": Case(
        wide("{action: Deny, TO_ALL, protocols: [{tcp: {}}]}, {action: Accept, TO_ALL, protocols: [{udp: {}}]}"),
    ),
    "a higher tier": Case(
        wide("{action: Deny, TO_ALL}") + "\n---\n" + np("podSelector: {}, egress: [{to: [{podSelector: {}}]}]"),
        (("rule-shadowed", "spec.egress[0]", "ClusterNetworkPolicy x egress[0] decides first (Deny)"),),
    ),
    "a Pass of a higher tier": Case(
        wide("{action: Pass, TO_ALL}") + "\n---\n" + np("podSelector: {}, egress: [{to: [{podSelector: {}}]}]"),
    ),
    "another rule says more": Case(
        np("podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]},"
           " {from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [db, web]}]}}],"
           " ports: [{port: 79, endPort: 81}]}]"),
        (("rule-redundant", "spec.ingress[0]", "NetworkPolicy a/x ingress[1] accepts all of it already"),),
    ),
    "the same rule twice": Case(
        np("podSelector: {}, ingress: [{ports: [{port: 80}]}, {ports: [{port: 80}]}]"),
        (("rule-redundant", "spec.ingress[1]", "NetworkPolicy a/x ingress[0] accepts"),),
    ),
    "each says something": Case(
        np("podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]},"
           " {from: [{podSelector: {matchLabels: {app: web}}}]}]"),
    ),
    "a problem": Case(
        wide("{action: Accept, to: [{domainNames: [x]}]}"),
        (("problem", "spec.egress[0]", "a peer of kind 'domainNames' can't be kept; it accepts nothing"),),
    ),
}  # fmt: skip
LINT_PEOPLE = """
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: a, name: web, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
status: {podIP: 10.0.0.1}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: db, labels: {app: db}}, status: {podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: hosts, name: host}, spec: {nodeName: n1, hostNetwork: true}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: new}}
"""


@pytest.mark.parametrize("row", LINTED)
def test_linted(tmp_path: Path, row: str) -> None:
    (tmp_path / "people.yaml").write_text(LINT_PEOPLE)
    (tmp_path / "policies.yaml").write_text(LINTED[row].policies)
    result = asked("lint", "-f", str(tmp_path), "-o", "json")
    found = json.loads(result.stdout)
    assert [(one["kind"], one["field"]) for one in found] == [(kind, field) for kind, field, _ in LINTED[row].found], found
    for one, (_, _, said) in zip(found, LINTED[row].found, strict=True):
        assert said in one["what"]
        assert one["do"]
    assert result.exit_code == (3 if LINTED[row].found else 0)
