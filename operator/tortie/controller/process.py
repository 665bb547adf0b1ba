"""The operator's process: health, the lease, and while it holds, Kopf and the operator side by side."""

import asyncio
import logging
from typing import Any

import kopf

from tortie import health
from tortie.api.meta import GROUP, VERSION
from tortie.controller import metrics
from tortie.controller.collection import collect_seldom
from tortie.controller.manifests import WRITTEN_BY_PEOPLE
from tortie.controller.operator import Operator
from tortie.controller.settings import Settings
from tortie.kube.client import Client, connect
from tortie.kube.election import Timing
from tortie.kube.lease import Lease

_log = logging.getLogger(__name__)

LEASE = "tortie-operator"


async def run(settings: Settings) -> None:
    """Wait to lead, lead, and return when that is over: the process then starts anew, with nothing remembered."""
    collect_seldom()
    shown = metrics.Shown()
    served = health.serve(settings.health_port, shown.render, settings.metrics_address)
    async with connect(settings.kubeconfig) as client, served:
        duration = settings.lease_duration
        # client-go's proportions: 15, 10 and 2 seconds.
        timing = Timing(duration, deadline=duration * 2 / 3, retry=duration * 2 / 15)
        lease = Lease(client, settings.namespace, LEASE, settings.identity, timing)
        shown.leads = lease.holds
        await lease.acquire()
        operator = Operator(client, settings, lease.holds)
        shown.known = operator.known
        tasks = [
            asyncio.create_task(lease.keep()),
            asyncio.create_task(operator.run()),
            asyncio.create_task(_serve_kopf(client, operator)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await lease.release()


async def _serve_kopf(client: Client, operator: Operator) -> None:
    """Let Kopf watch what people write. Its handlers only pass events on; it writes nothing to the objects."""
    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.error_backoffs = Backoffs()
    # Our own streams say in one line each that the API server is away and back.
    for name in ("kopf._cogs.clients", "kopf._core.reactor", "kopf._core.engines", "kopf.activities"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        configuration = client.configuration
        token = await client.credentials.authorization()
        return kopf.ConnectionInfo(
            server=configuration.host, ca_path=configuration.ssl_ca_cert,
            certificate_path=configuration.cert_file, private_key_path=configuration.key_file,
            scheme="Bearer" if token else None, token=token.split()[-1] if token else None,
        )  # fmt: skip

    for plural in WRITTEN_BY_PEOPLE:

        @kopf.on.event(GROUP, VERSION, plural, registry=registry)
        async def pass_on(event: Any, name: str, plural: str = plural, **_: Any) -> None:
            gone = event["type"] == "DELETED"
            operator.take(plural, name, None if gone else dict(event["object"]))

    # Kopf would ask for the user's name, which a container's user may not have; standalone, it tells nobody.
    identity: Any = "tortie"
    await kopf.operator(registry=registry, settings=settings, clusterwide=True, standalone=True, identity=identity)


class Backoffs:
    """Kopf's pauses between tries, in seconds, without end: an outage of any length is waited out."""

    def __iter__(self) -> Any:
        pause = 0.2
        while True:
            yield pause
            pause = min(pause * 2, 5.0)
