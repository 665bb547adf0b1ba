"""The operator's settings: each with its unit, its default, and what zero means."""

import socket
from typing import Annotated

from pydantic import BaseModel, Field


class Settings(BaseModel):
    """What the command line or the chart says to one operator."""

    kubeconfig: Annotated[str, Field(description="Path of a kubeconfig. Empty: the pod's service account.")] = ""
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
    health_port: Annotated[int, Field(ge=0, le=65535, description="Port on 127.0.0.1 of /healthz and /readyz. 0: none.")] = 9440
    default_pools: Annotated[
        tuple[str, ...], Field(description="CIDRs of the pools that are made when there is none. Empty: none is made.")
    ] = ()
