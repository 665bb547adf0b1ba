"""`tortiectl migrate`: what another network plugin was told, written as Tortie's objects."""

import click

from tortie.api.calico import translate
from tortie.cli.ctl import migration
from tortie.cli.ctl.calico import Source, from_cluster, from_files
from tortie.cli.ctl.cluster import Cluster
from tortie.cli.ctl.migration import Plan
from tortie.cli.ctl.output import OUTPUT, Column, Row, dump, show
from tortie.kube.client import Client

CHANGES = (
    Column("kind", "KIND"), Column("name", "NAME"), Column("change", "CHANGE"), Column("fields", "DIFFERENT FIELDS"),
)  # fmt: skip
FINDINGS = (Column("level", "LEVEL"), Column("object", "OBJECT"), Column("field", "FIELD"), Column("message", "WHAT"))


HELP = """Write Tortie's pools, reservations and BGP objects from Calico's.

Without --apply nothing is written: what would be is shown, with what the cluster does today and won't do then. Calico's own
objects are never touched. Exit status 1: refused.

\b
The order of a migration:
  1. tortiectl migrate from-calico           decide whether you can lose what it lists
  2. helm install tortie helm/tortie -n tortie-system --create-namespace
                                             Calico stays in charge: its CNI
                                             configuration comes first on the nodes
  3. tortiectl migrate from-calico --apply   pools are written disabled, and
                                             BGPConfigurations and BGPPeers are
                                             left for step 6
  4. remove Calico, and on every node its CNI configuration in /etc/cni/net.d
  5. reboot every node: Calico's rules are gone then, and its pods wait for new
     addresses
  6. do what the end of step 3 says: have nodes speak BGP, and enable the pools

Pools of one range in use by both would give out addresses twice, and Tortie doesn't know which addresses pods still have
from Calico. That is why the pools stay disabled until 6. Calico's BIRD and Tortie's would delete each other's routes. That is
why nodes don't speak BGP until 6.
"""


@click.group("migrate")
def command() -> None:
    """Write Tortie's objects from another network plugin's."""


@command.command("from-calico", help=HELP)
@click.option("-f", "--file", "path", metavar="PATH", help="Read manifests from a file, a folder or - instead of the cluster.")
@click.option("--apply", is_flag=True, help="Write the objects. Without it nothing is written.")
@click.option("--accept-losses", is_flag=True, help="Write although the cluster loses what the findings call a loss.")
@click.option("--overwrite", is_flag=True, help="Give objects that are there with other values Calico's values.")
@click.option("--enable-pools", is_flag=True, help="Leave pools enabled, and have nodes speak BGP. Only where Calico is gone.")
@OUTPUT
@click.pass_obj
def from_calico(
    cluster: Cluster, path: str | None, output: str, *, apply: bool, accept_losses: bool, overwrite: bool, enable_pools: bool
) -> None:
    """Read, translate, try, show; and with --apply write."""
    source = from_files(path) if path else cluster.ask(from_cluster)
    translation = translate(source.objects, enable_pools=enable_pools)

    async def planned(client: Client) -> Plan:
        return await migration.plan(client, translation, overwrite=overwrite, must_try=apply, alone=enable_pools)

    try:
        plan = cluster.ask(planned)
    except click.ClickException as error:
        if apply or not path:
            raise
        plan = migration.untried(translation, error.message, alone=enable_pools)  # files can be read without a cluster
    _shown(source, plan, output)
    if not apply:
        click.echo(next_step(plan), err=output in ("json", "yaml"))
        return
    if why := refusal(plan, accept_losses=accept_losses):
        raise click.ClickException(why)
    written = cluster.ask(lambda client: migration.write(client, plan.changes))
    click.echo(done(plan, written), err=output in ("json", "yaml"))


def _shown(source: Source, plan: Plan, output: str) -> None:
    if output == "json":
        click.echo(migration.as_json(plan))
    elif output == "yaml":
        dump(migration.manifests(plan), output)
        for finding in plan.findings:
            click.echo(" ".join(filter(None, (finding.level, finding.about, finding.field, finding.message))), err=True)
    else:
        click.echo(f"Read from {source.where}:\n")
        show(rows(plan), CHANGES, output, empty="no IPPool, IPReservation, IPAMConfiguration or BGP object")
        click.echo()
        show(finding_rows(plan), FINDINGS, output, empty="nothing is lost")
        click.echo()


def rows(plan: Plan) -> list[Row]:
    """Return what is said of each object, those that can't be written last."""
    shown = [{"kind": c.key[0], "name": c.key[1], "change": c.change, "fields": c.fields} for c in plan.changes]
    known = {change.key for change in plan.changes}
    refused = dict.fromkeys((finding.kind, finding.name) for finding in plan.of("refused"))
    return shown + [
        {"kind": kind, "name": name, "change": "refused", "fields": ()} for kind, name in refused if (kind, name) not in known
    ]


def finding_rows(plan: Plan) -> list[Row]:
    """Return what is said of each finding."""
    return [{**finding._asdict(), "object": finding.about} for finding in plan.findings]


def next_step(plan: Plan) -> str:
    """Return the sentences that end a dry run: what was not done, and what to do next."""
    writes = [change for change in plan.changes if change.is_write]
    differ, later = plan.that("differs"), plan.that("later")
    if not writes and not differ:
        return f"Nothing is to be written: what can be kept is there already.{_later(len(later))}"
    options = ["--apply"]
    options += ["--overwrite"] if differ else []
    options += ["--accept-losses"] if plan.of("loss", "refused") else []
    said = f"Nothing was written. {_losses(plan)}{' '.join(options)} writes {_objects(len(writes) + len(differ))}."
    if plan.untried:
        said += f" They are not tried with an API server yet: {plan.untried}."
        said += " Before --apply: helm install tortie helm/tortie -n tortie-system --create-namespace"
    return f"{said}{_later(len(later))}"


def refusal(plan: Plan, *, accept_losses: bool) -> str:
    """Return why nothing is written; empty where nothing speaks against it."""
    differ = [f"{'/'.join(change.key)} ({', '.join(change.fields)})" for change in plan.that("differs")]
    if differ:
        return f"nothing is written: there with other values: {'; '.join(differ)}. --overwrite gives them Calico's"
    if plan.of("loss", "refused") and not accept_losses:
        return f"nothing is written. {_losses(plan)}--accept-losses writes the rest without them"
    return ""


def done(plan: Plan, written: int) -> str:
    """Return the sentences that end a migration: what was written, and how its pools are enabled."""
    # Those that Calico uses; what it had disabled stays so.
    names = [finding.name for finding in plan.of("note") if (finding.kind, finding.field) == ("IPPool", "spec.disabled")]
    said = f"Written: {_objects(written)}.{_later(len(plan.that('later')))}"
    if not names:
        return said
    patch = f'kubectl patch ippools.tortie.dev {" ".join(names)} --type=merge -p \'{{"spec":{{"disabled":false}}}}\''
    return f"{said} The pools are disabled. When Calico and the pods with its addresses are gone:\n{patch}"


def _later(count: int) -> str:
    if not count:
        return ""
    keep = "tortiectl migrate from-calico -o yaml > tortie.yaml"
    return (
        f" Left for later: {_objects(count)} that nodes speak BGP by, because two BIRDs on a node delete each other's routes."
        f" Keep them now ({keep}), and when Calico runs on no node any more, before pools are enabled:"
        " kubectl apply -f tortie.yaml"
    )


def _losses(plan: Plan) -> str:
    losses, refused = len(plan.of("loss")), len({(f.kind, f.name) for f in plan.of("refused")})
    said = [f"{losses} {'loss' if losses == 1 else 'losses'}"] if losses else []
    said += [f"{_objects(refused)} that can't be written"] if refused else []
    return f"Found: {' and '.join(said)}. " if said else ""


def _objects(count: int) -> str:
    return f"{count} {'object' if count == 1 else 'objects'}"
