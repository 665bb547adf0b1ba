"""Settings that can't be, as a person who starts the operator sees them: one sentence, and no traceback."""

import pytest
from click.testing import CliRunner

from tortie.cli.operator import command
from tortie.controller.settings import Settings

EXAMPLE = "write the first address of a range and its prefix length, such as 10.1.0.0/16 or fd00:10:1::/48"
REFUSED = {
    "no address": (("ten",), f"default_pools: 'ten' is no CIDR; {EXAMPLE}"),
    "a prefix too long": (("10.1.0.0/99",), f"default_pools: '10.1.0.0/99' is no CIDR; {EXAMPLE}"),
    "an IPv6 prefix too long": (("fd00::/129",), f"default_pools: 'fd00::/129' is no CIDR; {EXAMPLE}"),
    "host bits": (("10.1.0.5/16",), f"default_pools: '10.1.0.5/16' is no CIDR; {EXAMPLE}"),
    "a single address": (("10.1.0.0",), f"default_pools: '10.1.0.0' is no CIDR; {EXAMPLE}"),
    "a netmask": (("10.1.0.0/255.255.0.0",), f"default_pools: '10.1.0.0/255.255.0.0' is no CIDR; {EXAMPLE}"),
    "two of one family": (
        ("10.1.0.0/16", "fd00::/48", "10.2.0.0/16"),
        "default_pools: 10.1.0.0/16 and 10.2.0.0/16 are both of IPv4; name one of each family, and apply further pools with"
        " kubectl",
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_default_pools_that_can_t_be_made(row: str) -> None:
    pools, sentence = REFUSED[row]
    said = CliRunner().invoke(command, [part for cidr in pools for part in ("--default-pool", cidr)])
    assert said.exit_code == 2
    assert said.output.endswith(f"\nError: {sentence}\n")


def test_a_number_that_can_t_be_is_shown() -> None:
    said = CliRunner().invoke(command, ["--lease-duration", "1"])
    assert said.output.endswith("\nError: lease_duration: Input should be greater than or equal to 3, not 1\n")


@pytest.mark.parametrize("pools", [(), ("10.1.0.0/16",), ("FD00:10:1::/48",), ("fd00::/48", "0.0.0.0/0")])
def test_default_pools(pools: tuple[str, ...]) -> None:
    assert Settings(default_pools=pools).default_pools == pools
