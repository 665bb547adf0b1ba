"""`tortie operator`: reads options and starts the process."""

import click
from pydantic import ValidationError

from tortie.cli.serving import LOG_FORMAT, LOG_LEVEL, metrics_address, serve
from tortie.controller.process import run
from tortie.controller.settings import SENTENCE, Settings
from tortie.health import NotServed
from tortie.kube.client import ApiError


@click.command("operator", context_settings={"auto_envvar_prefix": "TORTIE"})
@click.option("--kubeconfig", help=Settings.model_fields["kubeconfig"].description)
@click.option("--namespace", help=Settings.model_fields["namespace"].description)
@click.option("--identity", help="Name of this replica in the Lease. Default: the host's name.")
@click.option("--lease-duration", type=int, help=Settings.model_fields["lease_duration"].description)
@click.option("--reclaim-delay", type=float, help=Settings.model_fields["reclaim_delay"].description)
@click.option("--grace-period", type=float, help=Settings.model_fields["grace_period"].description)
@click.option("--leak-grace", type=float, help=Settings.model_fields["leak_grace"].description)
@click.option("--health-port", type=int, help=Settings.model_fields["health_port"].description)
@click.option("--metrics-address", callback=metrics_address, help=Settings.model_fields["metrics_address"].description)
@click.option("--default-pool", "default_pools", multiple=True, help="CIDR of a pool to make when there is none.")
@click.option("--log-level", default="INFO", type=LOG_LEVEL, help="The least severity that is logged. Default: INFO.")
@click.option("--log-format", default="text", type=LOG_FORMAT, help="json: one object a line, for programs. Default: text.")
def command(log_level: str, log_format: str, **options: object) -> None:
    """Run the operator: blocks for nodes, the status of pools."""
    try:
        settings = Settings.model_validate({k: v for k, v in options.items() if v not in (None, ())})
        serve(run(settings), log_level, log_format)
    except ValidationError as error:
        raise click.UsageError(_said(error)) from error
    except (ApiError, NotServed) as error:
        raise click.ClickException(str(error)) from error


def _said(error: ValidationError) -> str:
    """Return what is wrong with the first of the options: which, why, and its value."""
    first = error.errors()[0]
    value = "" if first["type"] == SENTENCE else f", not {first['input']!r}"
    return f"{first['loc'][0]}: {first['msg']}{value}"
