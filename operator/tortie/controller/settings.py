"""The operator's settings: each with its unit, its default, and what zero means."""

import socket
from ipaddress import ip_network
from typing import Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_core import PydanticCustomError

# The type of an error whose message is the whole sentence, the value included.
SENTENCE = "sentence"


class Settings(BaseModel):
    """What the command line or the chart says to one operator."""

    kubeconfig: Annotated[
        str, Field(description="Path of a kubeconfig. Empty: $KUBECONFIG, else the pod's service account.")
    ] = ""
    namespace: Annotated[str, Field(description="Namespace of the Lease.")] = "tortie-system"
    identity: Annotated[str, Field(description="Name of this replica in the Lease.")] = Field(
        default_factory=socket.gethostname
    )
    lease_duration: Annotated[
        int, Field(ge=3, description="Seconds without a sign of life after which another replica leads. At least 3.")
    ] = 15
    reclaim_delay: Annotated[
        float, Field(ge=0, description="Seconds that a Node may be gone until its blocks are deleted. 0: at once.")
    ] = 300.0
    grace_period: Annotated[
        float, Field(ge=0, description="Seconds that a surplus block stays empty until it is asked back. 0: at once.")
    ] = 900.0
    leak_grace: Annotated[
        float,
        Field(ge=0, description="Seconds that an address seems leaked until it is freed. 0: at once, after another look."),
    ] = 900.0
    health_port: Annotated[
        int, Field(ge=0, le=65535, description="Port on 127.0.0.1 of /healthz, /readyz and /metrics. 0: none.")
    ] = 9440
    metrics_address: Annotated[
        str, Field(description="HOST:PORT where /metrics alone is served, too; IPv6 as [::1]:9095. Empty: nowhere.")
    ] = ""
    default_pools: Annotated[
        tuple[str, ...],
        Field(
            description="CIDRs of the pools that are made when there is none, one of each family at most. Empty: none is made."
        ),
    ] = ()

    @field_validator("default_pools")
    @classmethod
    def _one_cidr_of_each_family(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        of_family: dict[int, str] = {}
        for cidr in cidrs:
            family = _family(cidr)
            if family in of_family:
                both = f"{of_family[family]} and {cidr} are both of IPv{family}"
                raise PydanticCustomError(SENTENCE, f"{both}; name one of each family, and apply further pools with kubectl")
            of_family[family] = cidr
        return cidrs


def _family(cidr: str) -> int:
    """Return 4 or 6; raises PydanticCustomError for what is no CIDR."""
    try:
        if cidr.rpartition("/")[2].isdecimal():  # neither a single address nor a netmask
            return ip_network(cidr).version
    except ValueError:  # host bits, too
        pass
    example = "the first address of a range and its prefix length, such as 10.1.0.0/16 or fd00:10:1::/48"
    raise PydanticCustomError(SENTENCE, f"{cidr!r} is no CIDR; write {example}")
