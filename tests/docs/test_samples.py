"""What the pages show as YAML is what the chart and the objects take."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.assets import KUBERNETES
from tests.cluster.kubectl import Kubectl
from tests.docs.pages import DOCS, ROOT, fences
from tests.docs.test_pages import OURS
from tortie.addressing import selector
from tortie.addressing.wants import FIXED, POOLS
from tortie.api.crd import object_schema
from tortie.api.ippool import IPPool, IPPoolSpec
from tortie.api.kinds import KINDS
from tortie.controller.status import spoken

ANNOTATIONS = {*FIXED, *(name for names in POOLS.values() for name in names)}


def samples(page: str) -> list[Any]:
    return [yaml.safe_load(block) for block in fences((DOCS / page).read_text(), "yaml")]


@pytest.mark.parametrize("values", samples("install.md"), ids="+".join)
def test_values(tmp_path: Path, values: dict[str, Any]) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    options = ("--values", str(file), "--kube-version", KUBERNETES)
    Kubectl(tmp_path / "nowhere").helm("template", "tortie", str(ROOT / "helm" / "tortie"), *options)


@pytest.mark.parametrize("sample", [*samples("pools.md"), *samples("choosing-a-mode.md"), *samples("bgp.md")], ids=str)
def test_objects(sample: dict[str, Any]) -> None:
    kind = next((k for k in KINDS if k.__name__ == sample.get("kind")), IPPool)
    assert sample.get("kind", "IPPool").lower() in OURS
    assert set(sample.get("metadata", {}).get("annotations", {})) <= ANNOTATIONS
    spec = sample.get("spec", {})
    assert spec.keys() <= object_schema(kind)["properties"]["spec"]["properties"].keys()
    if kind is IPPool and spec:
        parsed = IPPoolSpec.model_validate(spec)
        selector.parse(parsed.node_selector)
        selector.parse(parsed.namespace_selector or "")
    elif kind is not IPPool:
        kind.model_validate(sample)
        if kind.__name__.startswith("BGP"):
            assert [c["reason"] for c in spoken(sample)["conditions"]] == ["Supported"]
