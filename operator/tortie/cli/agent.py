"""`tortie agent`: reads options and starts the process."""

from pathlib import Path
from typing import Any

import click

from tortie.agent.detection import METHODS, BadMethod
from tortie.agent.install import NotInstalled
from tortie.agent.journal import NotDurable
from tortie.agent.process import run
from tortie.agent.settings import DETECTION, Settings
from tortie.agent.wire import WireError
from tortie.cli.serving import LOG_FORMAT, LOG_LEVEL, metrics_address, serve, without_traceback
from tortie.kube.client import ApiError

PATH = click.Path(path_type=Path)
FORESEEN = (ApiError, NotDurable, NotInstalled, WireError, BadMethod, OSError)


def _names(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return tuple(name for name in (one.strip() for one in value.split(",")) if name) if value else None


@click.command("agent", context_settings={"auto_envvar_prefix": "TORTIE"})
@click.option("--node", required=True, help="The Node's name, as kubectl get nodes shows it.")
@click.option("--kubeconfig", help="Path of a kubeconfig. Default: $KUBECONFIG, else the service account of the pod.")
@click.option("--run", type=PATH, help="Folder that a reboot empties. Default /run/tortie.")
@click.option("--state", type=PATH, help="Folder that lasts, with the ledger. Default /var/lib/tortie.")
@click.option("--plugin", help="The CNI plugin's file, to be installed. Default: none is.")
@click.option("--cni-bin", help="The runtime's folder of CNI plugins. Default: none is installed.")
@click.option("--cni-conf", help="The runtime's folder of CNI configurations. Default: none is installed.")
@click.option(
    "--mtu", type=click.IntRange(1280, 65535), help="Bytes that a pod's packet may have. Default: as the node's links."
)
@click.option("--vxlan-vni", type=click.IntRange(1, (1 << 24) - 1), help="VXLAN's identifier, of all nodes. Default 4096.")
@click.option("--vxlan-port", type=click.IntRange(1, 65535), help="VXLAN's UDP port, of all nodes. Default 4789.")
@click.option(
    "--address-detection", default=DETECTION, help=f"How the node's IPv4 address is found: {METHODS}. Default: {DETECTION}."
)
@click.option("--address-detection6", default=DETECTION, help="The same for IPv6.")
@click.option("--cooldown", type=click.FloatRange(0), help="Seconds that a released address rests. Default 30; 0: it doesn't.")
@click.option(
    "--daemonset", help="NAMESPACE/NAME of the agents; when it is deleted, an agent that ends cleans up. Default: never."
)
@click.option("--health-port", type=click.IntRange(0, 65535), help="Port of /healthz and /metrics. Default 9091; 0: none.")
@click.option(
    "--metrics-address",
    callback=metrics_address,
    help="HOST:PORT where /metrics alone is served, too; IPv6 as [::1]:9095. Default: nowhere.",
)
@click.option(
    "--policy-gate",
    type=click.Choice(["Closed", "Open"]),
    help="Closed: a pod waits until its policies are known. Open: it starts at once, unprotected. Default Closed.",
)
@click.option(
    "--policy-gate-exempt", callback=_names, help="Namespaces, by commas, whose pods never wait for that. Default: none."
)
@click.option("--policy-counters", is_flag=True, default=None, help="Count each policy's packets, as metrics. Default: no.")
@click.option("--log-level", default="INFO", type=LOG_LEVEL, help="The least severity that is logged. Default: INFO.")
@click.option("--log-format", default="text", type=LOG_FORMAT, help="json: one object a line, for programs. Default: text.")
def command(log_level: str, log_format: str, address_detection: str, address_detection6: str, **options: Any) -> None:
    """Run a node's agent: addresses and wires for its pods, routes to the other nodes."""
    given = {name: value for name, value in options.items() if value is not None}
    settings = Settings(**given, address_detection={4: address_detection, 6: address_detection6})
    with without_traceback(FORESEEN):
        serve(run(settings), log_level, log_format)
