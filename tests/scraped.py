"""What a process serves at /metrics, as Prometheus reads it."""

import urllib.request
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Scraped:
    """One look at one process, or at several together; raises ValueError where Prometheus couldn't read it."""

    def __init__(self, *texts: str) -> None:
        self.families = {one.name: one for text in texts for one in text_string_to_metric_families(text)}
        self.samples: list[Sample] = [sample for one in self.families.values() for sample in one.samples]

    @classmethod
    def of(cls, address: str) -> Self:
        """Look at HOST:PORT."""
        return cls(read(address))

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the one series that has exactly these labels, None where there is none."""
        return next((s.value for s in self.samples if s.name == name and s.labels == labels), None)

    def labels(self) -> dict[str, set[str]]:
        """Return the labels of each series' name."""
        found: dict[str, set[str]] = {}
        for sample in self.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        return found


def read(address: str, path: str = "/metrics") -> str:
    """Return the text of a page of a process."""
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text
