"""Calico's BGP manifests with another apiVersion are taken as they are; what can't be meant is refused by name."""

from typing import Any

import pytest

from tests.cluster.kubectl import Kubectl, Refused

ACCEPTED: dict[str, str] = {
    "the default configuration": """
        kind: BGPConfiguration
        metadata: {name: default}
        spec:
          logSeverityScreen: Info
          nodeToNodeMeshEnabled: true
          asNumber: 63400
          serviceClusterIPs: [{cidr: 10.96.0.0/12}]
          serviceExternalIPs: [{cidr: 104.244.42.129/32}, {cidr: 172.217.3.0/24}]
          serviceLoadBalancerIPs: [{cidr: 1.2.3.0/24}]
          listenPort: 178
          bindMode: NodeIP
          ignoredInterfaces: [docker0, "veth*"]
          communities: [{name: bgp-large-community, value: "63400:300:100"}]
          prefixAdvertisements: [{cidr: 172.218.4.0/26, communities: [bgp-large-community, "63400:120"]}]
          nodeMeshPassword: {secretKeyRef: {name: bgp-secrets, key: mesh}}
          nodeMeshMaxRestartTime: 120s""",
    "a global peer": """
        kind: BGPPeer
        metadata: {name: my-global-peer}
        spec: {peerIP: 192.20.30.40, asNumber: 64567}""",
    "a node's peer, with the AS number as text": """
        kind: BGPPeer
        metadata: {name: node1-peer}
        spec: {node: node1, peerIP: "[aa:bb::ff]:1790", asNumber: "1.10"}""",
    "a rack's peers": """
        kind: BGPPeer
        metadata: {name: rack1-tor}
        spec:
          nodeSelector: rack == 'rack-1'
          peerIP: 192.20.30.40:1179
          asNumber: 64567
          keepOriginalNextHop: true
          password: {secretKeyRef: {name: bgp-secrets, key: rr-password}}
          sourceAddress: None
          maxRestartTime: 2m30s
          numAllowedLocalASNumbers: 1
          ttlSecurity: 1
          reachableBy: 10.0.0.1
          filters: [my-filter]""",
    "route reflectors": """
        kind: BGPPeer
        metadata: {name: peer-with-route-reflectors}
        spec: {nodeSelector: all(), peerSelector: "route-reflector == 'true'"}""",
    "a filter": """
        kind: BGPFilter
        metadata: {name: my-filter}
        spec:
          exportV4:
          - {action: Accept, matchOperator: In, cidr: 77.0.0.0/16, source: RemotePeers, prefixLength: {min: 16, max: 24}}
          - {action: Reject, interface: "eth*"}
          importV4: [{action: Reject, matchOperator: NotIn, cidr: 44.0.0.0/16}]
          exportV6: [{action: Reject, source: RemotePeers}]
          importV6: [{action: Accept, matchOperator: Equal, cidr: "5000::/64"}, {action: Reject}]""",
}


@pytest.mark.parametrize("row", ACCEPTED)
def test_calicos_manifests_are_taken(cluster: Kubectl, row: str) -> None:
    lines = ACCEPTED[row].replace("\n        ", "\n")
    cluster.apply(f"apiVersion: tortie.dev/v1alpha1{lines}")


REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "AS 0": ("BGPPeer", {"peerIP": "10.0.0.1", "asNumber": 0}, "spec.asNumber", "must be an AS number"),
    "an AS in words": ("BGPPeer", {"peerIP": "10.0.0.1", "asNumber": "ten"}, "spec.asNumber", "must be an AS number"),
    "no address": ("BGPPeer", {"peerIP": "router-1"}, "spec.peerIP", "must be an IP address"),
    "a peer both ways": ("BGPPeer", {"peerIP": "10.0.0.1", "peerSelector": "all()"}, "spec.peerIP", "must be empty"),
    "a node both ways": ("BGPPeer", {"node": "a", "nodeSelector": "all()"}, "spec.node", "must be empty"),
    "a bad selector": ("BGPPeer", {"nodeSelector": "rack =="}, "spec.nodeSelector", "selector"),
    "an unknown source": ("BGPPeer", {"sourceAddress": "Mine"}, "spec.sourceAddress", "supported values"),
    "a port": ("BGPConfiguration", {"listenPort": 70000}, "spec.listenPort", "65535"),
    "a mode": ("BGPConfiguration", {"bindMode": "All"}, "spec.bindMode", "supported values"),
    "no CIDR": (
        "BGPConfiguration",
        {"serviceClusterIPs": [{"cidr": "ten"}]},
        "spec.serviceClusterIPs[0].cidr",
        "must be a CIDR",
    ),
    "an action": ("BGPFilter", {"importV4": [{"action": "Drop"}]}, "spec.importV4[0].action", "supported values"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_refused(cluster: Kubectl, row: str) -> None:
    kind, spec, field, words = REFUSED[row]
    body = {"apiVersion": "tortie.dev/v1alpha1", "kind": kind, "metadata": {"name": "default"}, "spec": spec}
    with pytest.raises(Refused) as refusal:
        cluster.apply(body)
    assert field in str(refusal.value)
    assert words in str(refusal.value)
