"""What a part says of itself in numbers, for Prometheus: counters that it keeps, and what is read at each look.

Belongs here: declaring them, and the text that is made of them. Does not: what is counted (`controller.metrics`,
`agent.metrics`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tortie import __version__

# The time at which a counter was made is another series for each, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

S = TypeVar("S")
_FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
# Values by those of its labels; one without labels has the key ().
Values = Mapping[tuple[str, ...], float]


class Declared(NamedTuple):
    """One metric, as people look it up; `name` is the one in the text."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


class Metrics(Generic[S]):
    """The metrics of one part, `component`. What it doesn't keep is read from an S, at each look."""

    def __init__(self, component: str) -> None:
        self.declared: list[Declared] = []
        self._registry = CollectorRegistry()
        self._read: list[tuple[Declared, Callable[[S], Values]]] = []
        ProcessCollector(registry=self._registry)  # memory, processor time, files, since when
        build = self.gauge("tortie_build_info", "1 for what runs: its version and which part it is.", ("version", "component"))
        build(lambda _source: {(__version__, component): 1})

    def counter(self, name: str, help_: str, labels: Sequence[str] = ()) -> Counter:
        """Declare what only grows."""
        self._declare(name, "counter", labels, help_)
        return Counter(name, help_, labels, registry=self._registry)

    def histogram(self, name: str, help_: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        """Declare what is measured many times; `buckets` are upper bounds in the unit that the name says."""
        self._declare(name, "histogram", labels, help_)
        return Histogram(name, help_, labels, registry=self._registry, buckets=buckets)

    def gauge(self, name: str, help_: str, labels: Sequence[str] = ()) -> Callable[[Callable[[S], Values]], None]:
        """Declare what is as it is; the function that is decorated returns it."""
        return self._reader(self._declare(name, "gauge", labels, help_))

    def read_counter(self, name: str, help_: str, labels: Sequence[str] = ()) -> Callable[[Callable[[S], Values]], None]:
        """Declare what only grows, and is counted elsewhere; the function that is decorated returns it."""
        return self._reader(self._declare(name, "counter", labels, help_))

    def _reader(self, declared: Declared) -> Callable[[Callable[[S], Values]], None]:
        def decorate(read: Callable[[S], Values]) -> None:
            self._read.append((declared, read))

        return decorate

    def render(self, source: S) -> bytes:
        """Return all of it as it is now, in Prometheus' text format."""
        return generate_latest(self._registry) + generate_latest(_Now(self._read, source))

    def _declare(self, name: str, type_: str, labels: Sequence[str], help_: str) -> Declared:
        declared = Declared(name, type_, tuple(labels), help_)
        self.declared.append(declared)
        return declared


class _Now(Collector, Generic[S]):
    """What is read, at one look."""

    def __init__(self, read: Sequence[tuple[Declared, Callable[[S], Values]]], source: S) -> None:
        self._read, self._source = read, source

    def collect(self) -> Iterator[Metric]:
        for declared, read in self._read:
            family = _FAMILIES[declared.type](declared.name, declared.help, labels=declared.labels)
            for labels, value in read(self._source).items():
                family.add_metric(labels, value)
            yield family
