"""`tortie hollow`: reads options and starts the process."""

from typing import Any

import click

from tortie.agent.hollow import TooFewFiles, run
from tortie.cli.serving import LOG_FORMAT, LOG_LEVEL, serve, without_traceback
from tortie.kube.client import ApiError

FORESEEN = (ApiError, TooFewFiles, OSError)


@click.command("hollow", context_settings={"auto_envvar_prefix": "TORTIE_HOLLOW"})
@click.option("--nodes", required=True, type=click.IntRange(1), help="How many nodes.")
@click.option("--prefix", default="hollow-", help="What their names begin with; a number follows. Default: hollow-.")
@click.option("--kubeconfig", help="Path of a kubeconfig. Default: $KUBECONFIG, else the service account of the pod.")
@click.option("--delete", is_flag=True, help="Delete the Nodes in the end. Default: they stay.")
@click.option("--log-level", default="INFO", type=LOG_LEVEL, help="The least severity that is logged. Default: INFO.")
@click.option("--log-format", default="text", type=LOG_FORMAT, help="json: one object a line, for programs. Default: text.")
def command(log_level: str, log_format: str, **options: Any) -> None:
    """Be many nodes without machines, to see what an API server and the operator bear. For tests."""
    with without_traceback(FORESEEN):
        serve(run(**options), log_level, log_format)
