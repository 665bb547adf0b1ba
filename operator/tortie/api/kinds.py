"""The list of all our kinds, and the CRD files that are made from it: `python -m tortie.api.kinds FOLDER [TEMPLATES]`."""

import sys
from pathlib import Path
from typing import Any

import yaml

from tortie.api.bgp import BGPConfiguration, BGPFilter, BGPPeer
from tortie.api.block import IPAMBlock, NodeNetwork
from tortie.api.crd import custom_resource_definition
from tortie.api.ippool import IPPool
from tortie.api.meta import GROUP, Resource
from tortie.api.policy import AddressSet, NodePolicy, RuleSet
from tortie.api.settings import IPAMConfiguration, IPReservation

# Written by people; the other ones are the operator's.
WRITTEN: tuple[type[Resource], ...] = (IPPool, IPReservation, IPAMConfiguration, BGPConfiguration, BGPPeer, BGPFilter)
KINDS: tuple[type[Resource], ...] = (*WRITTEN, IPAMBlock, NodeNetwork, NodePolicy, RuleSet, AddressSet)

_HEADER = "# Generated from operator/tortie/api by `make generate`. DO NOT EDIT.\n"
_KEEP = {"helm.sh/resource-policy": "keep"}


def files() -> dict[str, str]:
    """Return the CRDs as YAML by file name."""
    return {f"{GROUP}_{k.plural}.yaml": _HEADER + _yaml(custom_resource_definition(k)) for k in KINDS}


def template() -> str:
    """Return the chart's template: all CRDs, upgraded with the chart and kept when it is uninstalled."""
    documents = []
    for kind in KINDS:
        crd = custom_resource_definition(kind)
        crd["metadata"]["annotations"] = dict(_KEEP)
        documents.append(_yaml(crd).replace("{{", '{{ "{{" }}'))
    return _HEADER + "---\n".join(documents)


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=110, allow_unicode=True)


def write(folder: Path, templates: Path) -> None:
    """Write the CRD files and the chart's template, and remove CRD files of kinds that are no more."""
    for stale in set(folder.glob("*.yaml")) - {folder / name for name in files()}:
        stale.unlink()
    for name, text in files().items():
        (folder / name).write_text(text)
    (templates / "crds.yaml").write_text(template())


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
