"""`tortie operator`: reads options and starts the process."""

import click
from pydantic import ValidationError

from tortie.cli.main import LOG_LEVEL, serve
from tortie.controller.process import run
from tortie.controller.settings import Settings
from tortie.kube.client import ApiError


@click.command("operator", context_settings={"auto_envvar_prefix": "TORTIE"})
@click.option("--kubeconfig", help=Settings.model_fields["kubeconfig"].description)
@click.option("--namespace", help=Settings.model_fields["namespace"].description)
@click.option("--identity", help="Name of this replica in the Lease. Default: the host's name.")
@click.option("--lease-duration", type=int, help=Settings.model_fields["lease_duration"].description)
@click.option("--reclaim-delay", type=float, help=Settings.model_fields["reclaim_delay"].description)
@click.option("--grace-period", type=float, help=Settings.model_fields["grace_period"].description)
@click.option("--health-port", type=int, help=Settings.model_fields["health_port"].description)
@click.option("--default-pool", "default_pools", multiple=True, help="CIDR of a pool to make when there is none.")
@click.option("--log-level", default="INFO", type=LOG_LEVEL)
def command(log_level: str, **options: object) -> None:
    """Run the operator: blocks for nodes, the status of pools."""
    try:
        settings = Settings.model_validate({k: v for k, v in options.items() if v not in (None, ())})
        serve(run(settings), log_level)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"{first['loc'][0]}: {first['msg']}, not {first['input']!r}") from error
    except ApiError as error:
        raise click.ClickException(str(error)) from error
