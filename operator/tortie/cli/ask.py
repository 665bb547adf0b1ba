"""`tortie ask`: a question to the agent of this node, through its socket; tortiectl runs it by exec in the agent's pod."""

import json
import socket
from pathlib import Path
from typing import Any

import click

from tortie.agent.settings import Settings

# Seconds; a report of 4,096 addresses takes a tenth of one.
_PATIENCE = 20.0
_DEFAULT = Settings(node="").run
RUN = click.option(
    "--run", type=click.Path(path_type=Path), default=_DEFAULT, show_default=True, help="Folder of the agent's socket."
)


@click.group("ask")
def command() -> None:
    """Ask the agent of this node; the answer is JSON."""


@command.command()
@RUN
def report(run: Path) -> None:
    """Say what the agent knows: blocks, allocations, links, routes, problems."""
    click.echo(json.dumps(_ask(run, question="report")))


@command.command()
@RUN
def ways(run: Path) -> None:
    """Say what carries packets to each block of other nodes, and what the kernel has of it."""
    click.echo(json.dumps(_ask(run, question="ways")))


@command.command()
@click.argument("address")
@click.option("--epoch", required=True, help="The ledger that published the allocation (status.epoch of the IPAMBlock).")
@click.option("--sequence", required=True, type=int, help="The allocation's sequence there; a later one stays.")
@RUN
def release(address: str, epoch: str, sequence: int, run: Path) -> None:
    """Free an address that is leaked, and what else its interface had; one that an interface uses stays."""
    click.echo(json.dumps(_ask(run, question="release", address=address, epoch=epoch, sequence=sequence)))


@command.command()
@click.option("--epoch", default="", help="Which agent's numbers are meant; with another one all that is kept is new.")
@click.option("--number", default=0, help="The last denial that is known.")
@RUN
def denials(epoch: str, number: int, run: Path) -> None:
    """Say what was denied lately, where a policy asks for that to be logged."""
    click.echo(json.dumps(_ask(run, question="denials", epoch=epoch, number=number)))


def _ask(run: Path, **question: Any) -> Any:
    path = run / "agent.sock"
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(_PATIENCE)
            asked.connect(str(path))
            asked.sendall(json.dumps(question).encode())
            asked.shutdown(socket.SHUT_WR)
            answer = json.loads(b"".join(iter(lambda: asked.recv(65536), b"")))
    except (OSError, ValueError) as error:  # an agent that ends gives no whole answer
        raise click.ClickException(f"the agent doesn't answer at {path}: {error}; is it running on this node?") from error
    if "error" in answer:
        raise click.ClickException(answer["error"]["msg"])
    return answer["result"]
