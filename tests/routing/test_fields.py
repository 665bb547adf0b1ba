"""Every field of the objects is in some row, every row's text is one that BIRD takes, and so is that of any other objects."""

import os
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.routing import test_bird, test_filters, test_peering, test_services
from tests.routing.bgp import BIRD, KINDS, SECRETS, Written, configured, read, refused, sessions
from tortie.api import bgp
from tortie.api.crd import object_schema
from tortie.routing import peering
from tortie.routing.services import Endpoints, advertised, ranges

# What no part of Tortie acts on yet, which the operator says.
NOT_YET = {"localWorkloadSelector", "localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6"}
MODELS = {"BGPConfiguration": bgp.BGPConfiguration, "BGPPeer": bgp.BGPPeer, "BGPFilter": bgp.BGPFilter}

Field = tuple[str, str]  # a struct's name, and a field's


def rows() -> Iterator[Written]:
    """Yield the objects of every row."""
    texts = [row.written for row in test_peering.ROWS.values()]
    texts += [row.written for row in test_peering.SAID.values()]
    texts += [row.written for row in test_bird.ROWS.values()]
    yield from map(read, texts)
    for rule in test_filters.ROWS.values():
        yield read(test_filters.written(rule))
    for one in test_services.ROWS.values():
        yield read("\n".join((f"BGPConfiguration/default: {{{one.spec}}}", *one.objects)))


def parts(annotation: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield the structs that a field's type names."""
    if get_origin(annotation) in (tuple, Union, types.UnionType):
        for one in get_args(annotation):
            yield from parts(one)
    elif isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation


def fields(struct: type[msgspec.Struct]) -> Iterator[Field]:
    """Yield all fields below a struct, but for metadata."""
    for one in msgspec.structs.fields(struct):
        if one.name != "metadata":
            yield struct.__name__, one.encode_name
            for part in parts(one.type):
                yield from fields(part)


def used(struct: type[msgspec.Struct], raw: Any) -> Iterator[Field]:
    """Yield the fields that an object as it was written says something of."""
    for one in raw if isinstance(raw, list) else [raw]:
        for field in msgspec.structs.fields(struct):
            if isinstance(one, dict) and field.encode_name in one:
                yield struct.__name__, field.encode_name
                for part in parts(field.type):
                    yield from used(part, one[field.encode_name])


def test_every_field_is_in_some_row() -> None:
    said = {field for written in rows() for kind, _, body in written.raw for field in used(KINDS[kind], body)}
    assert {field for struct in KINDS.values() for field in fields(struct)} - said == set()


def inner(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field's type names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from inner(one)


def names(struct: type[msgspec.Struct], model: type[BaseModel]) -> Iterator[tuple[str, set[str], set[str]]]:
    """Yield the fields of a struct and of the model that it stands for, and of those below."""
    lean = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    whole = {field.alias or name: field for name, field in model.model_fields.items()}
    yield struct.__name__, set(lean), set(whole)
    for name, field in lean.items():
        for part, its in zip(parts(field.type), inner(whole[name].annotation), strict=True) if name in whole else ():
            yield from names(part, its)


@pytest.mark.parametrize("kind", MODELS)
def test_no_field_of_the_objects_is_left_out(kind: str) -> None:
    spec = next(field for field in msgspec.structs.fields(KINDS[kind]) if field.name == "spec")
    model = next(inner(MODELS[kind].model_fields["spec"].annotation))
    for struct, lean, whole in names(next(parts(spec.type)), model):
        assert whole - lean <= NOT_YET, struct
        assert lean - whole == set(), struct


@pytest.mark.skipif(BIRD is None, reason="BIRD isn't installed")
def test_bird_takes_every_row(tmp_path: Path) -> None:
    texts = {name: configured(read(row.written), row.here, row.clusters, **row.plan)[0] for name, row in test_bird.ROWS.items()}
    for name, one in test_peering.ROWS.items():
        texts[f"peering: {name}"] = configured(read(one.written), one.here, one.clusters)[0]
    for name, rule in test_filters.ROWS.items():
        use = "\nBGPPeer/in: {peerSelector: all(), filters: [one]}\nBGPPeer/tor: {peerIP: 192.0.2.254, filters: [one]}"
        texts[f"filter: {name}"] = configured(read(test_filters.written(rule) + use))[0]
    assert {name: why for name, text in texts.items() if (why := refused(text, tmp_path))} == {}


# --- any objects that the CRDs permit

EXAMPLES = 600 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 60
NASTY = st.sampled_from(
    ['x"; }', "a\nb", "'", "one", "two", "blue", "docker0", "veth*", "ä", "", "\\", "64512:1", "99999:1", "#", "٣:٣"]
)
SELECTORS = st.sampled_from(
    ["all()", "rack == '1'", "has(reflector)", "!has(reflector)", "", "rack in {'1', \"2\"}", "global()"]
)
NUMBERS = st.one_of(st.integers(1, 4294967295), st.sampled_from(["64512", "1.10", "0", "9999999999", "65536.1", "00001"]))
ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(
        ["192.0.2.1", "192.0.2.2", "192.0.2.254", "2001:db8::2", "fe80::1", "::", "0.0.0.0", "ff02::1", "224.0.0.5"]
    ),
)


def any_range(address: str) -> st.SearchStrategy[str]:
    return st.integers(0, 128 if ":" in address else 32).map(lambda length: f"{address}/{length}")


CIDRS = ADDRESSES.flatmap(any_range)
ENDS = st.one_of(
    ADDRESSES,
    st.tuples(ADDRESSES, st.integers(0, 99999)).map(
        lambda end: f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"
    ),
)


def text(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Return texts that the API server takes, and those first that somebody may write on purpose."""
    longest = schema.get("maxLength", 300)
    if pattern := schema.get("pattern"):
        return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True).filter(lambda one: len(one) <= longest)
    letters = st.characters(codec="utf-8", exclude_categories=["Cs"])
    return st.one_of(NASTY, st.text(letters, max_size=min(longest, 8)), st.just("n" * longest))


# By words of the rules.
RULED = {
    "self.split(':')": ENDS,
    "isCIDR(self)": CIDRS,
    "isIP(self)": ADDRESSES,
    "must be a selector": SELECTORS,
    "AS number": NUMBERS,
}


def permitted(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return what a CRD's schema permits; what its rules permit is told by their words."""
    said = str(schema.get("x-kubernetes-validations", "")) if schema.get("type") != "object" else ""
    if ruled := [RULED[words] for words in RULED if words in said]:
        return ruled[0]
    if schema.get("x-kubernetes-int-or-string"):
        return st.one_of(NUMBERS, NASTY)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = {"boolean": lambda _: st.booleans(), "integer": integers, "array": lists, "object": mappings, "string": text}
    return kinds[schema["type"]](schema)


def integers(schema: dict[str, Any]) -> st.SearchStrategy[int]:
    least, most = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
    return st.one_of(st.integers(least, most), st.integers(least, min(most, max(least, 0) + 9)))


def lists(schema: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    least, most = schema.get("minItems", 0), schema.get("maxItems", 3)
    return st.lists(permitted(schema["items"]), min_size=least, max_size=min(3, most))


def mappings(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    inside = {name: permitted(one) for name, one in schema["properties"].items()}
    needed = {name: inside.pop(name) for name in schema.get("required", ())}
    return st.fixed_dictionaries(needed, optional=inside)


SPECS = {kind: permitted(object_schema(model)["properties"]["spec"]) for kind, model in MODELS.items()}


def sound(peer: dict[str, Any]) -> dict[str, Any]:
    """Return a BGPPeer's spec without what the CRD's rules forbid beside others, and with some that work."""
    drop = {"nodeSelector"} if "node" in peer else set()
    drop |= {"peerIP", "asNumber"} if "peerSelector" in peer else set()
    return {name: value for name, value in peer.items() if name not in drop}


NAMES = st.sampled_from(["one", "two", "x.y-z", "n" * 253])
KEYS = st.sampled_from([{"secretKeyRef": {"name": name, "key": key}} for name, key in SECRETS])


@st.composite
def objects(draw: st.DrawFn) -> Written:
    raw = list[tuple[str, str, dict[str, Any]]]()
    for name in draw(st.sets(st.sampled_from(["default", "node.a"]))):
        raw.append(("BGPConfiguration", name, {"spec": draw(SPECS["BGPConfiguration"])}))
    for kind in ("BGPPeer", "BGPFilter"):
        for name in draw(st.sets(NAMES, max_size=3)):
            spec = draw(SPECS[kind])
            if kind == "BGPPeer":
                spec = sound(spec) | draw(
                    st.fixed_dictionaries({}, optional={"password": KEYS, "filters": st.lists(NAMES, max_size=2)})
                )
            raw.append((kind, name, {"spec": spec}))
    of = {
        kind: tuple(
            msgspec.convert({"metadata": {"name": name}, **body}, type=struct) for its, name, body in raw if its == kind
        )
        for kind, struct in KINDS.items()
    }
    return Written(tuple(raw), of)


@pytest.mark.skipif(BIRD is None, reason="BIRD isn't installed")
@settings(max_examples=EXAMPLES)
@given(objects(), st.sampled_from("abd"), st.booleans())
def test_bird_takes_whatever_the_crds_permit(
    tmp_path_factory: pytest.TempPathFactory, written: Written, here: str, reflects: bool
) -> None:
    """No object of anybody's keeps BIRD from its configuration, or makes a protocol that isn't a session of it."""
    note(str(written.raw))
    clusters, spec = {here: "244.0.0.1"} if reflects else {}, peering.configuration(written.objects, here)
    services, wrong = advertised(spec, (), Endpoints(here), {})
    made, problems = configured(written, here, clusters, services=tuple(services), service_ranges=ranges(spec))
    assert refused(made, tmp_path_factory.getbasetemp()) == ""
    assert all({**problems, **wrong}.values())
    protocols = [line.split()[1] for line in made.splitlines() if line.startswith("protocol")]
    assert set(protocols) <= {"device", "direct", "kernel", "bfd", "static", "bgp"}
    assert protocols.count("kernel") == 2
    assert protocols.count("bgp") == len(sessions(written, here, clusters)[0])
