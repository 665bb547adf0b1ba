"""`tortie agent`: reads options and starts the process."""

from pathlib import Path
from typing import Any

import click

from tortie.agent.install import NotInstalled
from tortie.agent.journal import NotDurable
from tortie.agent.process import run
from tortie.agent.settings import Settings
from tortie.agent.wire import WireError
from tortie.cli.main import LOG_LEVEL, serve
from tortie.kube.client import ApiError

PATH = click.Path(path_type=Path)


@click.command("agent", context_settings={"auto_envvar_prefix": "TORTIE"})
@click.option("--node", required=True, help="The Node's name, as kubectl get nodes shows it.")
@click.option("--kubeconfig", help="Path of a kubeconfig. Default: the service account of the pod.")
@click.option("--run", type=PATH, help="Folder that a reboot empties. Default /run/tortie.")
@click.option("--state", type=PATH, help="Folder that lasts, with the ledger. Default /var/lib/tortie.")
@click.option("--plugin", help="The CNI plugin's file, to be installed. Default: none is.")
@click.option("--cni-bin", help="The runtime's folder of CNI plugins. Default: none is installed.")
@click.option("--cni-conf", help="The runtime's folder of CNI configurations. Default: none is installed.")
@click.option(
    "--mtu", type=click.IntRange(1280, 65535), help="Bytes that a pod's packet may have. Default: as the node's links."
)
@click.option("--cooldown", type=click.FloatRange(0), help="Seconds that a released address rests. Default 30; 0: it doesn't.")
@click.option("--health-port", type=click.IntRange(0, 65535), help="Port of /healthz and /metrics. Default 9091; 0: none.")
@click.option("--log-level", default="INFO", type=LOG_LEVEL)
def command(log_level: str, **options: Any) -> None:
    """Run a node's agent: addresses and wires for its pods, routes to the other nodes."""
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
        serve(run(settings), log_level)
    except (ApiError, NotDurable, NotInstalled, WireError, OSError) as error:
        raise click.ClickException(str(error)) from error
