"""Calico's objects in Tortie's form: one pure function, `translate`, and what it finds on the way.

Belongs here: which field becomes which, and what a person loses. Does not: reading or writing, and rules in CEL, which only an
API server judges. Field names are Calico's, so most of it is to name what isn't carried. Objects are in the form of
`projectcalico.org/v3` or of `crd.projectcalico.org/v1`, in which Calico stores them.
"""

import ipaddress
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError

from tortie.api.bgp import BGPConfiguration, BGPFilter, BGPPeer
from tortie.api.calico_losses import CALICO_GROUPS, Finding, Object, group_of, mapping, ordered, text, unkept
from tortie.api.ippool import IPPool
from tortie.api.meta import API_VERSION, Model, Resource
from tortie.api.settings import IPAMConfiguration, IPReservation

Spec = dict[str, Any]
Wire = dict[str, Any]

# In the order in which they are written: pools last, when what is reserved in them stands.
TARGETS: dict[str, type[Resource]] = {
    "IPReservation": IPReservation,
    "IPAMConfig": IPAMConfiguration,
    "IPAMConfiguration": IPAMConfiguration,
    "BGPFilter": BGPFilter,
    "BGPConfiguration": BGPConfiguration,
    "BGPPeer": BGPPeer,
    "IPPool": IPPool,
}
WAY_OUT = "correct it in Calico, or leave it out here and write it by hand"

# The v3 API's labels and annotations of an object stored in crd.projectcalico.org/v1, as JSON.
_METADATA = "projectcalico.org/metadata"
# Parts of keys that are Calico's own, by Calico's own rule, or kubectl's.
_NOT_THE_USERS = ("projectcalico.org/", "operator.tigera.io/", "kubectl.kubernetes.io/last-applied-configuration")
# Who manages Calico's object doesn't manage ours: Argo CD or Helm would delete what they take for theirs.
_MANAGED = (
    *("app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "meta.helm.sh/", "argocd.argoproj.io/"),
    *("kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/"),
)
# Unsigned numbers of Calico's that Go leaves out when they are zero.
_ZERO_IS_UNSET = frozenset({"blockSize", "asNumber", "localASNumber", "listenPort"})

_EFFECTIVE_BLOCKS = 1024  # of each family, the most that a node ever gets
_MAX_BLOCKS = 1_000_000  # the most that is taken; older Calicos took any number
_COOLDOWN = 30  # seconds that a released address rests here


class Translation(NamedTuple):
    """Our objects in the order in which they are written, and what was found, losses first."""

    objects: tuple[Wire, ...]
    findings: tuple[Finding, ...]


class _Draft:
    """One object on its way: what is kept of its spec, and what was found."""

    def __init__(self, kind: str, name: str, spec: Spec, findings: list[Finding]) -> None:
        self.kind, self.name, self.spec, self._findings = kind, name, spec, findings

    def loss(self, field: str, message: str) -> None:
        self._findings.append(Finding("loss", self.kind, self.name, field, message))

    def note(self, field: str, message: str) -> None:
        self._findings.append(Finding("note", self.kind, self.name, field, message))

    def refuse(self, field: str, message: str) -> None:
        self._findings.append(Finding("refused", self.kind, self.name, field, f"{message}; {WAY_OUT}"))


def translate(objects: Iterable[Object], *, enable_pools: bool = False) -> Translation:
    """Return our objects for Calico's, and findings; pools are disabled unless `enable_pools`. It never raises."""
    objects, findings = list(objects), list[Finding]()
    ours, seen = dict[tuple[str, str], Wire](), dict[tuple[str, str], Object]()
    order = list(TARGETS)
    for one in sorted(filter(_has_target, objects), key=lambda one: (order.index(one["kind"]), _name(one))):
        key = (TARGETS[one["kind"]].model_fields["kind"].default, _name(one))
        draft = _Draft(*key, {}, findings)
        if key in seen and _spec(seen[key]) != _spec(one):
            draft.refuse("", "stands here twice, with different values, and only the first is taken")
        if key in seen:
            continue
        seen[key] = one
        if wire := _translated(one, draft, enable_pools=enable_pools):
            ours[key] = wire
    findings += unkept(one for one in objects if not _has_target(one))
    return Translation(tuple(ours.values()), ordered(findings))


def _has_target(one: Object) -> bool:
    return group_of(one) in CALICO_GROUPS and str(one.get("kind")) in TARGETS


def _name(one: Object) -> str:
    return str(mapping(one.get("metadata")).get("name") or "")


def _translated(one: Object, draft: _Draft, *, enable_pools: bool) -> Wire | None:
    target, metadata = TARGETS[one["kind"]], mapping(one.get("metadata"))
    if not _heeded(one, metadata, draft):
        return None
    draft.spec = _set(_spec(one))
    if draft.kind in _BEFORE:
        _BEFORE[draft.kind](draft)
    draft.spec = _known(target, draft)
    wrong = list(_wrong(target, draft.spec))
    for field, message in wrong:
        draft.refuse(field, message)
    if wrong:
        return None
    _AFTER[draft.kind](draft)
    if draft.kind == "IPPool" and not draft.spec.get("disabled") and not enable_pools:
        draft.spec["disabled"] = True
        draft.note("spec.disabled", "true until Calico is gone: both would give out the same addresses")
    kept = _metadata(metadata, draft)
    return {"apiVersion": API_VERSION, "kind": draft.kind, "metadata": {"name": draft.name, **kept}, "spec": draft.spec}


def _heeded(one: Object, metadata: Object, draft: _Draft) -> bool:
    """Whether this is an object that holds in Calico, and one that can be read."""
    if not draft.name:
        draft.refuse("metadata.name", "there is none")
    elif metadata.get("deletionTimestamp"):
        draft.note("", "is left out: it is being deleted")
    elif draft.kind == "IPAMConfiguration" and draft.name != "default":
        draft.note("metadata.name", "is left out: Calico heeds only the one named default")
    elif not isinstance(one.get("spec") or {}, Mapping):
        draft.refuse("spec", f"must be an object; it is {text(one['spec'])}")
    else:
        return True
    return False


def _spec(one: Object) -> Spec:
    return dict(mapping(one.get("spec")))


def _set(value: Any) -> Any:
    """Return a value without what Calico takes for unset: null, what is empty, and zeros that Go leaves out."""
    if isinstance(value, list):
        return [_set(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    pruned = {key: _set(item) for key, item in value.items()}
    return {key: item for key, item in pruned.items() if not _is_unset(key, item)}


def _is_unset(key: Any, value: Any) -> bool:
    if value == {}:
        return bool(key != "ipip")  # in the first API an empty one says that there is no encapsulation
    return value is None or value in ("", []) or (key in _ZERO_IS_UNSET and value == 0 and not isinstance(value, bool))


def _pool_before(draft: _Draft) -> None:
    """Bring the fields of Calico's first API up to date, as Calico does when it reads them."""
    spec = draft.spec
    if isinstance(old := spec.get("ipip"), Mapping):
        mode = "CrossSubnet" if old.get("mode") == "cross-subnet" else "Always"
        mode = mode if old.get("enabled") else "Never"
        if spec.get("ipipMode", mode) != mode:
            draft.note("spec.ipipMode", f"{text(spec['ipipMode'])} gives way to ipip, as in Calico")
        spec["ipipMode"] = mode
        del spec["ipip"]
        draft.note("spec.ipip", f"is ipipMode: {mode} now")
    if "nat-outgoing" in spec:
        spec["natOutgoing"] = bool(spec.pop("nat-outgoing")) or bool(spec.get("natOutgoing"))
        draft.note("spec.nat-outgoing", f"is natOutgoing: {str(spec['natOutgoing']).lower()} now")
    uses = spec.get("allowedUses")
    if spec.get("namespaceSelector") and isinstance(uses, list) and "Tunnel" in uses:
        spec["allowedUses"] = [use for use in uses if use != "Tunnel"]
        draft.note("spec.allowedUses", "without Tunnel: a tunnel belongs to no namespace, and the pool is for some of them")
    _masked(draft)


def _masked(draft: _Draft) -> None:
    """Write a range by its first address; what isn't a range is for the API server to refuse."""
    cidr = draft.spec.get("cidr")
    try:
        given = ipaddress.ip_interface(cidr) if isinstance(cidr, str) and "/" in cidr else None
    except ValueError:
        return
    if given and given.ip != given.network.network_address:
        draft.spec["cidr"] = str(given.network)
        draft.note("spec.cidr", f"{cidr} is {given.network} now, written by its first address")


def _pool_after(draft: _Draft) -> None:
    if draft.spec.get("disableBGPExport"):
        draft.note("spec.disableBGPExport", "true: kept; peers outside aren't told of its blocks, and other nodes are")
    if "LoadBalancer" in draft.spec.get("allowedUses", ()):
        draft.loss("spec.allowedUses", "LoadBalancer: kept, but Tortie gives no addresses to Services yet")


def _ipam_before(draft: _Draft) -> None:
    blocks = draft.spec.get("maxBlocksPerHost")
    if isinstance(blocks, int) and blocks > _EFFECTIVE_BLOCKS:
        draft.spec["maxBlocksPerHost"] = min(blocks, _MAX_BLOCKS)
        draft.note("spec.maxBlocksPerHost", f"{blocks}: more than {_EFFECTIVE_BLOCKS} counts as {_EFFECTIVE_BLOCKS}")


def _ipam_after(draft: _Draft) -> None:
    if draft.spec.get("strictAffinity") is False:
        draft.note("spec.strictAffinity", "false: kept, but nodes never borrow here; an exhausted pool's blocks are split")
    if draft.spec.get("autoAllocateBlocks") is False:
        draft.loss("spec.autoAllocateBlocks", "false: kept, but nodes always get further blocks by themselves here")


def _bgp_before(draft: _Draft) -> None:
    """Write a severity as our declaration has it: Calico takes any case, and knows one more."""
    severity = draft.spec.get("logSeverityScreen")
    if isinstance(severity, str):
        draft.spec["logSeverityScreen"] = severity.capitalize()
        if severity.capitalize() == "Trace":
            draft.spec["logSeverityScreen"] = "Debug"
            draft.note("spec.logSeverityScreen", f"{severity} is Debug now")


def _bgp_after(draft: _Draft) -> None:
    """Name what a session needs besides the object, and pods that would peer."""
    for field in ("nodeMeshPassword", "password"):
        if secret := mapping(mapping(draft.spec.get(field)).get("secretKeyRef")).get("name"):
            draft.note(f"spec.{field}", f"make Secret {secret} in Tortie's namespace, and name it in the chart's bgp.secrets")
    for field in ("localWorkloadSelector", "localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6"):
        if value := draft.spec.get(field):
            draft.loss(f"spec.{field}", f"{text(value)}: kept, but pods can't peer with their node yet")


_BEFORE: dict[str, Callable[[_Draft], None]] = {
    "IPPool": _pool_before,
    "IPAMConfiguration": _ipam_before,
    "BGPConfiguration": _bgp_before,
}
_AFTER: dict[str, Callable[[_Draft], None]] = {
    "IPPool": _pool_after,
    "IPAMConfiguration": _ipam_after,
    "IPReservation": lambda draft: None,  # noqa: ARG005
    "BGPConfiguration": _bgp_after,
    "BGPPeer": _bgp_after,
    "BGPFilter": lambda draft: None,  # noqa: ARG005
}

# Calico's fields that we don't have.
_DROPPED = {
    ("BGPPeer", "keepaliveTime"): "a silent peer counts as there for 90 s here; failureDetectionMode notices its end sooner",
    ("BGPConfiguration", "programClusterRoutes"): "BIRD sets the routes of what nothing encapsulates, the agents all others",
    ("IPAMConfiguration", "kubeVirtVMAddressPersistence"): "a virtual machine that moves gets another address",
    ("IPAMConfiguration", "minIPReclaimAgeSeconds"): f"a released address rests {_COOLDOWN} s here",
}


def _known(target: type[Resource], draft: _Draft) -> Spec:
    """Return what our declaration has of a spec; each of the other fields becomes a finding."""
    dropped = list[tuple[str, Any]]()
    kept: Spec = _split(_inner(target.model_fields["spec"].annotation), draft.spec, "", dropped)
    for path, value in dropped:
        why = _DROPPED.get((draft.kind, path), "Tortie doesn't know this field")
        harmless = value in (False, "Disabled") or path == "programClusterRoutes"
        harmless = harmless or (path == "minIPReclaimAgeSeconds" and _short(value))
        (draft.note if harmless else draft.loss)(f"spec.{path}", f"{text(value)}: is not kept; {why}")
    return kept


def _short(seconds: Any) -> bool:
    return isinstance(seconds, int) and seconds <= _COOLDOWN


def _split(model: type[Model] | None, value: Any, path: str, dropped: list[tuple[str, Any]]) -> Any:
    if model is None:
        return value
    if isinstance(value, list):
        return [_split(model, item, f"{path}[{index}]", dropped) for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    fields, kept = {field.alias: field for field in model.model_fields.values()}, Spec()
    for key, item in value.items():
        inside = f"{path}.{key}" if path else str(key)
        if key in fields:
            kept[key] = _split(_inner(fields[key].annotation), item, inside, dropped)
        else:
            dropped.append((inside, item))
    return kept


def _inner(annotation: Any) -> type[Model] | None:
    """Return the model that a field's annotation holds, itself or in a tuple or a union."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next(filter(None, map(_inner, get_args(annotation))), None)


def _wrong(target: type[Resource], spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield field and message for what our declaration refuses; JSON, because texts for numbers must not pass."""
    declared, said = target.model_fields["spec"].annotation, set[str]()
    assert isinstance(declared, type)
    assert issubclass(declared, Model)
    try:
        declared.model_validate_json(json.dumps(spec, default=str), strict=True)
    except ValidationError as error:
        for one in error.errors():
            # The parts in lower case behind the field name a member of a union.
            field = "spec" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in one["loc"] if p not in ("int", "str"))
            if field not in said:
                said.add(field)
                given = "" if one["type"] == "missing" else f"; it is {text(one['input'])}"
                yield field, one["msg"].replace("Input should", "must") + given


def _metadata(metadata: Object, draft: _Draft) -> dict[str, dict[str, str]]:
    """Return the labels and annotations that are the user's."""
    stored = mapping(metadata.get("annotations")).get(_METADATA, "{}")
    try:
        inner = mapping(json.loads(stored))
    except (TypeError, ValueError):
        inner = {}
        draft.note(f"metadata.annotations[{_METADATA}]", "isn't JSON: the labels and annotations in it are left out")
    kept, managed = dict[str, dict[str, str]](), set[str]()
    for part in ("labels", "annotations"):
        everything = {**mapping(metadata.get(part)), **mapping(inner.get(part))}
        users = {key: value for key, value in everything.items() if not any(own in str(key) for own in _NOT_THE_USERS)}
        managed |= {key for key in users if str(key).startswith(_MANAGED)}
        if mine := {key: value for key, value in users.items() if key not in managed}:
            kept[part] = mine
    if managed:
        draft.note("metadata", f"says who manages Calico's object, and is left out: {', '.join(sorted(managed))}")
    return kept
