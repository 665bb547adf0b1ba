"""`tortiectl diagnose`: one archive of all that a bug report needs, without secrets."""

import asyncio
import io
import json
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from tortie import __version__
from tortie.addressing.audit import audit
from tortie.api.kinds import KINDS
from tortie.api.lean import Pod
from tortie.api.meta import GROUP
from tortie.cli.ctl.agents import each, ready_on, reports
from tortie.cli.ctl.check import build, to_ask
from tortie.cli.ctl.cluster import (
    DAEMONSETS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    NODES,
    PODS,
    Cluster,
    Object,
    list_lean,
    list_path,
    ours,
)
from tortie.cli.ctl.output import writable
from tortie.cli.ctl.overview import LEASE, Overview, problems, troubled
from tortie.kube.client import ApiError, Client, Forbidden

T = TypeVar("T")

PART = "app.kubernetes.io/component"
OWN = "app.kubernetes.io/name=tortie"
# Nodes whose logs and reports are gathered where nobody says how many: 50 logs of 5,000 lines are 40 MB.
_NODES = 50
# Lines of each log, from its end.
LOG_LINES = 5000
_LEFT_OUT = "left out"
# What clients write into annotations whole, values that we leave out included.
_COPIES = ("kubectl.kubernetes.io/last-applied-configuration",)


@dataclass
class Archive:
    """Files by name; what could not be gathered is a line of `errors`."""

    files: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    async def add(self, name: str, gathered: Awaitable[T], shown: Callable[[T], Any] = lambda answer: answer) -> T | None:
        """Take in an answer as it is `shown`: a text as it is, anything else as JSON. Return it, None where there is none."""
        try:
            answer = await gathered
            text = shown(answer)
            self.files[name] = text if isinstance(text, str) else json.dumps(text, indent=2)
        except Exception as error:  # whatever is odd about one part, the others are what is left to find out why
            said = str(error) if isinstance(error, ApiError) else f"{type(error).__name__}: {error}"
            self.errors.append(f"{name}: {said}")
            return None
        return answer

    def write(self, path: Path, root: str) -> None:
        """Write all of it as a tar.gz whose files are in the folder `root`."""
        with tarfile.open(path, "w:gz") as tar:
            for name, text in sorted({**self.files, "errors.txt": "\n".join(self.errors)}.items()):
                entry, content = tarfile.TarInfo(f"{root}/{name}"), text.encode()
                entry.size, entry.mtime = len(content), int(time.time())
                tar.addfile(entry, io.BytesIO(content))


@click.command("diagnose")
@click.option(
    "--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="The archive. Default: named by the time."
)
@click.option(
    "--nodes", default=_NODES, show_default=True, type=click.IntRange(0),
    help="Logs and reports of at most so many nodes, those with problems first. 0: all.",
)  # fmt: skip
@click.pass_obj
def command(cluster: Cluster, path: Path | None, nodes: int) -> None:
    """Gather what a bug report needs into one tar.gz: objects, logs, Events, what each agent says, what doesn't agree.

    No Secret is read, and values of environment variables are left out. Names and addresses of pods and nodes are in it.
    What could not be gathered is listed in errors.txt.
    """
    root = f"tortie-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}"
    target = writable(path or Path(f"{root}.tar.gz"))
    archive = cluster.ask(lambda client: Diagnosis(client, cluster.namespace, nodes).gather())
    archive.write(target, root)
    click.echo(f"{target}: {len(archive.files)} files, {target.stat().st_size // 1024} KB")
    for error in archive.errors:
        click.echo(f"left out: {error}", err=True)


class Diagnosis:
    """Gathers everything once; what is judged is judged of that."""

    def __init__(self, client: Client, namespace: str, limit: int) -> None:
        self._client, self._namespace, self._limit = client, namespace, limit
        self._archive = Archive()
        self._lists = dict[str, list[Object]]()  # by plural; a kind that could not be read is missing

    async def gather(self) -> Archive:
        """Return all that can be had; raises NotFound on a cluster without Tortie."""
        with suppress(Forbidden):  # it is said again, with what is missing
            await self._client.list_page(ours("ippools").path(), limit=1)
        own, archive = {"labelSelector": OWN}, self._archive
        await asyncio.gather(
            *(self._list("objects", kind.plural, ours(kind.plural).path()) for kind in KINDS),
            *(self._list("cluster", one.plural, one.path(namespace=self._namespace), **own)
              for one in (PODS, DEPLOYMENTS, DAEMONSETS)),
            self._list("cluster", "nodes", NODES.path()),
            self._list("cluster", "leases", LEASES.path(namespace=self._namespace), fieldSelector=f"metadata.name={LEASE}"),
            archive.add("version.json", self._versions()),
        )  # fmt: skip
        seen = await archive.add("problems.json", self._overview(), _problems)
        chosen = self._chosen(seen)
        await asyncio.gather(self._events(), self._logs(chosen), self._check(chosen))
        return archive

    async def _list(self, folder: str, plural: str, path: str, **query: str) -> None:
        found = await self._archive.add(f"{folder}/{plural}.json", list_path(self._client, path, **query), _cleaned)
        if found is not None:
            self._lists[plural] = found

    async def _versions(self) -> Any:
        return {"tortiectl": __version__, "kubernetes": json.loads(await self._client.get("/version"))}

    async def _overview(self) -> Overview:
        lists = {name: tuple(self._need(name)) for name in ("ippools", "ipamblocks", "nodenetworks", "nodes", "pods", "leases")}
        return Overview(
            self._namespace, self._pods("operator"), self._pods("agent"), next(iter(lists["leases"]), None), lists["nodes"],
            lists["ippools"], lists["ipamblocks"], lists["nodenetworks"], next(iter(self._lists.get("daemonsets", ())), None),
        )  # fmt: skip

    def _need(self, plural: str) -> list[Object]:
        if plural not in self._lists:
            raise LookupError(f"{plural} could not be read")
        return self._lists[plural]

    def _pods(self, part: str) -> tuple[Object, ...]:
        return tuple(pod for pod in self._lists.get("pods", ()) if pod["metadata"]["labels"].get(PART) == part)

    def _chosen(self, seen: Overview | None) -> list[str]:
        """Return the nodes whose logs and reports are gathered, those with problems first."""
        ill = troubled(seen) if seen else set()
        names = to_ask(seen.expected if seen else self._lists.get("nodes", ()), self._lists.get("ipamblocks", ()), ())
        return sorted(names, key=lambda name: (name not in ill, name))[: self._limit or None]

    async def _check(self, nodes: list[str]) -> None:
        said = await reports(self._client, self._namespace, nodes, ready_on(self._pods("agent")))
        for node, report in said.items():
            if isinstance(report, str):
                self._archive.errors.append(f"agents/{node}.json: {report}")
            else:
                self._archive.files[f"agents/{node}.json"] = json.dumps(report, indent=2)

        async def compared() -> Any:
            pools, blocks = self._need("ippools"), self._need("ipamblocks")
            views = dict.fromkeys(to_ask(self._need("nodes"), blocks, ()), "not asked") | said
            found = audit(build(pools, blocks, views, await list_lean(self._client, PODS.path(), Pod)))
            return [one._asdict() for one in found if one.kind != "silent" or one.node in said]

        await self._archive.add("check.json", compared())

    async def _logs(self, nodes: list[str]) -> None:
        agents = [pod for pod in self._pods("agent") if pod["spec"].get("nodeName") in nodes]
        await each((*self._pods("operator"), *agents), self._log)

    async def _log(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        await self._archive.add(f"logs/{name}.log", self._text(name))
        if any(one.get("restartCount") for one in pod.get("status", {}).get("containerStatuses") or ()):
            await self._archive.add(f"logs/{name}.previous.log", self._text(name, previous="true"))

    async def _text(self, pod: str, **query: str) -> str:
        path = PODS.path(pod, namespace=self._namespace, subresource="log")
        return (await self._client.get(path, tailLines=str(LOG_LINES), timestamps="true", **query)).decode(errors="replace")

    async def _events(self) -> None:
        names = {one["metadata"]["name"] for kind in ("pods", "deployments", "daemonsets") for one in self._lists.get(kind, ())}

        def is_own(event: Object) -> bool:
            about = event["involvedObject"]
            return about.get("name") in names or about["kind"] == "Node" or GROUP in about.get("apiVersion", "")

        for room in {self._namespace, "default"}:  # Events of what has no namespace are in default
            found = list_path(self._client, EVENTS.path(namespace=room))
            await self._archive.add(f"events/{room}.json", found, lambda events: _cleaned(filter(is_own, events)))


def _problems(seen: Overview) -> Any:
    return [one._asdict() for one in problems(seen, datetime.now(UTC))]


def _cleaned(items: Iterable[Object]) -> Any:
    return [clean(item) for item in items]


def clean(item: Object) -> Any:
    """Return an object without what is long and says nothing, and without values that may be secret."""
    meta = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    if "annotations" in meta:
        meta["annotations"] = {key: value for key, value in meta["annotations"].items() if key not in _COPIES}
    return _without_values({**item, "metadata": meta})


def _without_values(part: Any) -> Any:
    """Leave out the values of environment variables, wherever they stand."""
    if isinstance(part, list):
        return [_without_values(one) for one in part]
    if not isinstance(part, dict):
        return part
    found = {key: _without_values(value) for key, value in part.items()}
    if isinstance(found.get("env"), list):
        found["env"] = [{**one, "value": _LEFT_OUT} if "value" in one else one for one in found["env"]]
    return found
