"""What a query of Prometheus names: series, labels, values, and the labels that its result has."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import promql_parser as promql

Labels = Callable[[str], set[str]]

# Grafana's variables, as it would fill them in.
_VARIABLES = {"$__rate_interval": "5m", "$node": ".*"}


def parse(expression: str) -> promql.Expr:
    """Return the query; raises ValueError where it is none."""
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    return promql.parse(expression)


def selectors(query: promql.Expr) -> Iterator[promql.VectorSelector]:
    """Yield every series that a query names."""
    match query:
        case promql.VectorSelector():
            yield query
        case promql.MatrixSelector():
            yield query.vector_selector
        case promql.Call():
            for argument in query.args:
                yield from selectors(argument)
        case promql.BinaryExpr():
            yield from selectors(query.lhs)
            yield from selectors(query.rhs)
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from selectors(query.expr)


def name(selector: promql.VectorSelector) -> str:
    """Return the name of a series."""
    assert selector.name, f"{selector.prettify()}: a series without a name"
    return selector.name


def result(query: promql.Expr, labels: Labels, unknown: list[str]) -> set[str]:
    """Return the labels that the result can have; a label that it asks for and there isn't is put on `unknown`."""
    match query:
        case promql.VectorSelector() | promql.MatrixSelector():
            return set[str]().union(*(labels(name(selector)) for selector in selectors(query)))
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return result(query.expr, labels, unknown)
        case promql.AggregateExpr():
            return _aggregated(query, result(query.expr, labels, unknown), unknown)
        case promql.Call():
            return _called(query, labels, unknown)
        case promql.BinaryExpr():
            left, right = (result(side, labels, unknown) for side in (query.lhs, query.rhs))
            return left or right
        case _:
            return set()


def _aggregated(query: promql.AggregateExpr, inside: set[str], unknown: list[str]) -> set[str]:
    asked = set(query.modifier.labels) if query.modifier else set()
    unknown += sorted(asked - inside)
    if query.modifier and query.modifier.type == promql.AggModifierType.Without:
        return inside - asked
    # They choose among series and leave them as they are.
    return inside if str(query.op) in ("topk", "bottomk") else asked


def _called(query: promql.Call, labels: Labels, unknown: list[str]) -> set[str]:
    found = set[str]().union(*(result(argument, labels, unknown) for argument in query.args))
    if query.func.name == "histogram_quantile":
        unknown += sorted({"le"} - found)
        return found - {"le"}
    return set() if query.func.name == "absent" else found


def matched(selector: promql.VectorSelector) -> Mapping[str, tuple[Any, str]]:
    """Return how a series is chosen: operator and value by label."""
    return {matcher.name: (matcher.op, matcher.value) for matcher in selector.matchers.matchers}
