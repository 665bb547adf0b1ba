"""Figures of leak judgement: 100,000 published allocations against 100,000 pods, as the operator's streams keep them."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from tortie.addressing.ranges import parse
from tortie.addressing.state import State
from tortie.api import lean
from tortie.controller import translate
from tortie.controller.leaks import Leaks
from tortie.kube.client import Client
from tortie.kube.events import EventPoster
from tortie.kube.stream import Stream
from tortie.kube.wire import Codec, key

COUNT = 100_000
HELD = 50  # allocations of a block, which has 64 addresses
PAGE = 500
CHANGED = 1_000
# A range that the planner may ask for next: whether a pod reports an address of it.
NEXT = parse("10.255.0.0/26")
STATIC = {"kubernetes.io/config.hash": "uid-{}"}


class Case(NamedTuple):
    """What is with so many of a hundred allocations; the parts of its Pod that are special."""

    of_a_hundred: int
    leaked: bool = False
    exists: bool = True
    named: bool = True
    meta: dict[str, Any] = {}  # noqa: RUF012 - a tuple's default
    spec: dict[str, Any] = {}  # noqa: RUF012
    status: dict[str, Any] = {}  # noqa: RUF012


CASES = {
    "runs": Case(84),
    "is on its way out": Case(2, meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
    "is static": Case(1, meta={"uid": "mirror", "annotations": STATIC}),
    "reports no address yet": Case(2, status={"podIPs": []}),
    "has no node, as far as is known": Case(1, spec={"nodeName": ""}),
    "has no name": Case(2, exists=False, named=False),
    "is gone": Case(3, leaked=True, exists=False),
    "has another uid": Case(2, leaked=True, meta={"uid": "another"}),
    "runs elsewhere": Case(1, leaked=True, spec={"nodeName": "elsewhere"}),
    "has ended": Case(1, leaked=True, status={"phase": "Succeeded"}),
    "uses the host's network": Case(1, leaked=True, spec={"hostNetwork": True}),
}
OF_A_HUNDRED = [case for case in CASES.values() for _ in range(case.of_a_hundred)]


def judged() -> dict[str, float]:
    """Return the seconds and the MB of a full judgement, and the µs of one pod's change; in a process of their own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_judged).result()


def _judged() -> dict[str, float]:
    pods = {key(pod): pod for page in _pages(_pods()) for pod in Codec(lean.Pod).page(page).items}
    blocks = [block for page in _pages(_blocks()) for block in Codec(lean.Block).page(page).items]
    assert (len(pods), sum(len(block.status.allocations) for block in blocks)) == (COUNT, COUNT)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # so that the peak is that of what follows (proc_pid_clear_refs(5))
    before = _memory_mb("VmRSS")
    first, leaks, state = _full(pods, blocks)
    peak = _memory_mb("VmHWM") - before
    times = [first, *(_full(pods, blocks)[0] for _ in range(4))]
    return {
        "collect_100k": statistics.median(times), "collect_100k_rss": peak,
        "collect_one_change": _one_change(pods, leaks, state),
    }  # fmt: skip


def _full(pods: dict[str, lean.Pod], blocks: list[lean.Block]) -> tuple[float, Leaks, State]:
    """Judge everything from nothing, as the operator does at its start; return the seconds and what it knows then."""
    state = State()
    for block in map(translate.block, blocks):
        state.put_block(block)
    # What reads and writes isn't asked to.
    leaks = Leaks(cast("Client", None), state, cast("EventPoster", None), 0, pods, wake=lambda: None)
    start = time.perf_counter()
    for pod in pods.values():
        leaks.on_pod(None, pod)
    for block in state.blocks.values():
        leaks.put_block(block)
    found = {suspect.pod for suspect in leaks.collector.due(time.monotonic())}
    took = time.perf_counter() - start
    assert found == {("default", _name(index)) for index in range(COUNT) if _case(index).leaked}
    return took, leaks, state


def _one_change(store: dict[str, lean.Pod], leaks: Leaks, state: State) -> float:
    """Return the mean µs of a pod's change, as the stream tells it; each is followed by what the planner asks next.

    Pods end, are made again, go, and come back without an address, which they then report.
    """
    stream, since = Stream(cast("Client", None), "/api/v1/pods", lean.Pod, leaks.on_pod), leaks.collector.since
    stream.store = store
    live = [store[f"default/{_name(index)}"] for index in range(COUNT) if _case(index) is CASES["runs"]]
    chosen, known, took = random.Random(1).sample(live, CHANGED), len(since), 0.0
    steps: list[tuple[Callable[[lean.Pod], object], int]] = [
        (lambda pod: stream._put(_changed(pod, "ended", lean.PodStatus("Failed", pod.status.pod_ips))), CHANGED),
        (stream._put, 0),
        (lambda pod: stream._drop(key(pod)), CHANGED),
        (lambda pod: stream._put(_changed(pod, "pending", lean.PodStatus("Pending"))), 0),
        (stream._put, 0),
    ]
    for change, leaked in steps:
        start = time.perf_counter()
        for pod in chosen:
            change(pod)
            state.is_reported(NEXT)
        took += time.perf_counter() - start
        assert len(since) == known + leaked
    return took / (CHANGED * len(steps)) * 1e6


def _changed(pod: lean.Pod, version: str, status: lean.PodStatus) -> lean.Pod:
    meta = msgspec.structs.replace(pod.metadata, resource_version=version)
    return msgspec.structs.replace(pod, metadata=meta, status=status)


def _case(index: int) -> Case:
    return OF_A_HUNDRED[index % 100]


def _name(index: int) -> str:
    return f"deployment-{index // 100:04}-5d8f7c9b64-{index % 100:05}"


def _address(index: int) -> str:
    at = index // HELD * 64 + index % HELD
    return f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}"


def _pods() -> Iterator[dict[str, Any]]:
    """Yield a Pod for each allocation that has one, then as many others, in the host's network, as make up the count."""
    existing = [index for index in range(COUNT) if _case(index).exists]
    for index in existing:
        case = _case(index)
        meta = {"name": _name(index), "uid": f"uid-{index}", **case.meta}
        if "annotations" in meta:
            meta["annotations"] = {name: text.format(index) for name, text in meta["annotations"].items()}
        status = {"phase": "Running", "podIPs": [{"ip": _address(index)}], **case.status}
        yield _pod(meta, {"nodeName": f"node-{index // HELD:05}", **case.spec}, status)
    for index in range(COUNT - len(existing)):
        yield _pod({"name": f"daemon-{index}", "uid": f"daemon-{index}"}, {"nodeName": "node-00000", "hostNetwork": True}, {})


def _pod(meta: dict[str, Any], spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": "deployment", "pod-template-hash": "5d8f7c9b64"}
    meta = {
        "namespace": "default",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": labels,
    } | meta
    return {"metadata": meta, "spec": spec, "status": status}


def _blocks() -> Iterator[dict[str, Any]]:
    for number in range(COUNT // HELD):
        indexes = range(number * HELD, (number + 1) * HELD)
        start, node = _address(indexes[0]), f"node-{number:05}"
        spec = {"cidr": f"{start}/26", "pool": {"name": "pool", "uid": "pool"}, "active": True,
                "affinity": {"node": node, "uid": node, "machineID": node}}  # fmt: skip
        status = {"epoch": node, "sequence": HELD, "free": 14, "allocations": [_allocation(index) for index in indexes]}
        meta = {"name": f"{start.replace('.', '-')}-26", "uid": f"uid-{start}", "resourceVersion": "1"}
        yield {"metadata": meta, "spec": spec, "status": status}


def _allocation(index: int) -> dict[str, Any]:
    one = {"address": _address(index), "sequence": index % HELD + 1}
    return {**one, "namespace": "default", "pod": _name(index), "uid": f"uid-{index}"} if _case(index).named else one


def _pages(items: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield lists as the API server sends them."""
    page: list[dict[str, Any]] = []
    for item in items:
        page.append(item)
        if len(page) == PAGE:
            yield msgspec.json.encode({"metadata": {"resourceVersion": "1"}, "items": page})
            page.clear()
    yield msgspec.json.encode({"metadata": {"resourceVersion": "1"}, "items": page})


def _memory_mb(field: str) -> float:
    """Return a figure of this process's memory (proc_pid_status(5))."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024
