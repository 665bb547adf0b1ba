"""Calico's selector language: which nodes, namespaces or peers an object takes, by their labels.

The language is what projectcalico/calico reads in `libcalico-go/lib/selector`: `tokenizer/tokenizer.go` says what a
word is, `parser/parser.go` how words join, `parser/ast.go` what they mean; the tests beside them hold the corners. Ours
needs no separate tokenizer, because a word's kind depends on its place: `in in {'in'}` is a key, an operator, a set.

Two things differ, and neither changes what is selected. Brackets nest `MAX_DEPTH` deep at most. And the canonical text
has only the brackets it needs, so that it never nests deeper than what was read; Calico's puts a pair around every
`&&` and `||`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

# Calico has no limit, because a Go stack grows. A level costs Python four frames while reading, so 32 levels stay far
# from its limit of 1,000, and no person needs a third of them; the API server refuses more than six anyway.
MAX_DEPTH = 32
# `MaxLabelLength` in tokenizer.go. Kubernetes' own keys have 317 characters at most.
MAX_KEY = 512
# Selectors in use at one time: one or two a pool, and those of the peers. At most some 10 KB each.
CACHED = 4096

Labels = Mapping[str, str]


class SelectorError(ValueError):
    """A text that is no selector: `problem` and its 1-based `column` in `text`, and the `way_out`."""

    def __init__(self, text: str, column: int, problem: str, way_out: str) -> None:
        super().__init__(text, column, problem, way_out)
        self.text, self.column, self.problem, self.way_out = text, column, problem, way_out

    def __str__(self) -> str:
        return f"{self.problem} @ column {self.column} of selector {_excerpt(self.text, self.column)}: {self.way_out}"


# The tree of a selector. Each kind of node tests labels, and prints itself as text that reads back as the same node.


@dataclass(frozen=True, slots=True)
class All:
    """`all()`, and the empty selector."""

    def matches(self, _labels: Labels) -> bool:
        """Take everything."""
        return True

    def __str__(self) -> str:
        return "all()"


@dataclass(frozen=True, slots=True)
class Global:
    """`global()`: in Calico's policies, what has no namespace; as a test of labels, everything (`GlobalNode`)."""

    def matches(self, _labels: Labels) -> bool:
        """Take everything."""
        return True

    def __str__(self) -> str:
        return "global()"


@dataclass(frozen=True, slots=True)
class Has:
    """`has(key)`: the label is there, whatever its value."""

    key: str

    def matches(self, labels: Labels) -> bool:
        """Take labels that have the key."""
        return self.key in labels

    def __str__(self) -> str:
        return f"has({self.key})"


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A key, an operator and one value."""

    operator: ClassVar[str]
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key} {self.operator} {_quote(self.value)}"


@dataclass(frozen=True, slots=True)
class Equal(_Comparison):
    """`key == 'value'`."""

    operator = "=="

    def matches(self, labels: Labels) -> bool:
        """Take labels where the key has the value."""
        return labels.get(self.key) == self.value


@dataclass(frozen=True, slots=True)
class NotEqual(_Comparison):
    """`key != 'value'`."""

    operator = "!="

    def matches(self, labels: Labels) -> bool:
        """Take labels where the key has another value or is missing (`LabelNeValueNode` in ast.go)."""
        return labels.get(self.key) != self.value


@dataclass(frozen=True, slots=True)
class Contains(_Comparison):
    """`key contains 'value'`. A missing label contains nothing, not even the empty text; so with the next two."""

    operator = "contains"

    def matches(self, labels: Labels) -> bool:
        """Take labels where the key is there and its value contains ours."""
        found = labels.get(self.key)
        return found is not None and self.value in found


@dataclass(frozen=True, slots=True)
class StartsWith(_Comparison):
    """`key starts with 'value'`."""

    operator = "starts with"

    def matches(self, labels: Labels) -> bool:
        """Take labels where the key is there and its value starts with ours."""
        found = labels.get(self.key)
        return found is not None and found.startswith(self.value)


@dataclass(frozen=True, slots=True)
class EndsWith(_Comparison):
    """`key ends with 'value'`."""

    operator = "ends with"

    def matches(self, labels: Labels) -> bool:
        """Take labels where the key is there and its value ends with ours."""
        found = labels.get(self.key)
        return found is not None and found.endswith(self.value)


@dataclass(frozen=True, slots=True)
class _Membership:
    """A key, an operator and a set of values, printed sorted and each once (`stringset.go`)."""

    operator: ClassVar[str]
    key: str
    values: frozenset[str]

    def __str__(self) -> str:
        return f"{self.key} {self.operator} {{{', '.join(_quote(value) for value in sorted(self.values))}}}"


@dataclass(frozen=True, slots=True)
class In(_Membership):
    """`key in {'a', 'b'}`. The set may be empty: then nothing is taken."""

    operator = "in"

    def matches(self, labels: Labels) -> bool:
        """Take labels where the key has one of the values."""
        return labels.get(self.key) in self.values


@dataclass(frozen=True, slots=True)
class NotIn(_Membership):
    """`key not in {'a', 'b'}`."""

    operator = "not in"

    def matches(self, labels: Labels) -> bool:
        """Take labels where the key has none of the values or is missing (`LabelNotInSetNode` in ast.go)."""
        return labels.get(self.key) not in self.values


@dataclass(frozen=True, slots=True)
class Not:
    """`!` before a test or a bracket: it binds closest, so `!a == 'b'` is `!(a == 'b')`."""

    operand: "Node"

    def matches(self, labels: Labels) -> bool:
        """Take what the operand doesn't."""
        return not self.operand.matches(labels)

    def __str__(self) -> str:
        return f"!({self.operand})" if isinstance(self.operand, And | Or) else f"!{self.operand}"


@dataclass(frozen=True, slots=True)
class And:
    """Tests joined by `&&`."""

    operands: tuple["Node", ...]

    def matches(self, labels: Labels) -> bool:
        """Take what every operand takes."""
        for operand in self.operands:  # noqa: SIM110 - half the time of all() with a generator
            if not operand.matches(labels):
                return False
        return True

    def __str__(self) -> str:
        return " && ".join(f"({operand})" if isinstance(operand, Or) else str(operand) for operand in self.operands)


@dataclass(frozen=True, slots=True)
class Or:
    """Tests joined by `||`, which binds weakest."""

    operands: tuple["Node", ...]

    def matches(self, labels: Labels) -> bool:
        """Take what some operand takes."""
        for operand in self.operands:  # noqa: SIM110 - half the time of any() with a generator
            if operand.matches(labels):
                return True
        return False

    def __str__(self) -> str:
        return " || ".join(map(str, self.operands))


Node = All | Global | Has | Equal | NotEqual | Contains | StartsWith | EndsWith | In | NotIn | Not | And | Or


class Selector:
    """A selector: its tree `root` and its canonical text. Two are equal when their texts are."""

    __slots__ = ("_canonical", "root")

    def __init__(self, root: Node) -> None:
        self.root = root
        self._canonical = str(root)

    def matches(self, labels: Labels) -> bool:
        """Whether what has these labels is taken."""
        return self.root.matches(labels)

    def __str__(self) -> str:
        return self._canonical

    def __repr__(self) -> str:
        return f"Selector({self._canonical!r})"

    def __eq__(self, other: object) -> bool:
        return self._canonical == other._canonical if isinstance(other, Selector) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._canonical)


@lru_cache(maxsize=CACHED)
def parse(text: str) -> Selector:
    """Return the selector that `text` is, in time linear in its length; raises SelectorError."""
    return Selector(_Reader(text).selector())


# Calico's white space: a line break is none (`trimWhitespace` in tokenizer.go).
_BLANKS = re.compile(r"[ \t]*+")
_KEY_CHARACTER = r"[A-Za-z0-9_./-]"
_KEY = re.compile(rf"{_KEY_CHARACTER}++")
# There is no escape: a value can't hold both kinds of quotes.
_VALUE = re.compile(r"""'[^']*+'|"[^"]*+\"""")
_NOT = re.compile(r"!(?!=)")
# Blanks inside `starts with`, `ends with` and `not in` may be many or none; after a word, no key character may follow.
_OPERATOR = re.compile(rf"[!=]=|(?:contains|(?:starts|ends)[ \t]*+with|(?:not[ \t]*+)?in)(?!{_KEY_CHARACTER})")
# What an error shows of the text: something that a person sees as one word.
_SHOWN = re.compile(rf"""[!=]=|&&|\|\||'[^']*+'|"[^"]*+"|{_KEY_CHARACTER}++|.""", re.DOTALL)

_COMPARISONS: dict[str, type[Equal | NotEqual | Contains | StartsWith | EndsWith]] = {
    kind.operator.replace(" ", ""): kind for kind in (Equal, NotEqual, Contains, StartsWith, EndsWith)
}
_MEMBERSHIPS: dict[str, type[In | NotIn]] = {"in": In, "notin": NotIn}

_NO_BLANKS = str.maketrans("", "", " \t")


class _Reader:
    """Recursive descent over a text, one method for each rule of the grammar; blanks are skipped behind each word."""

    __slots__ = ("_at", "_open", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open: list[int] = []  # the columns of the brackets that are open
        self._read(_BLANKS)

    def selector(self) -> Node:
        """The whole text; without a word in it, it selects everything (`parseRoot`)."""
        if self._at == len(self._text):
            return All()
        node = self._any()
        if self._at < len(self._text):
            raise self._unexpected("&& or ||", "join two tests with && or ||, and open a bracket for each that is closed")
        return node

    def _any(self) -> Node:
        operands = [self._every()]
        while self._take("||"):
            operands.append(self._every())
        return operands[0] if len(operands) == 1 else _join(Or, operands)

    def _every(self) -> Node:
        operands = [self._term()]
        while self._take("&&"):
            operands.append(self._term())
        return operands[0] if len(operands) == 1 else _join(And, operands)

    def _term(self) -> Node:
        negated = False
        while self._read(_NOT):
            negated = not negated
        operand = self._operand()
        return _negate(operand) if negated else operand

    def _operand(self) -> Node:
        column = self._at + 1
        if self._take("("):
            return self._bracket(column)
        # Only without a blank before its bracket is it a function: `has == 'x'` tests a key of that name.
        if self._take("has("):
            key = self._key("a key", "write has(key); a key has letters, digits and _ . / -, and no quotes")
            return self._closed(Has(key), "has(key)")
        if self._take("all("):
            return self._closed(All(), "all()")
        if self._take("global("):
            return self._closed(Global(), "global()")
        return self._test(self._key("a test", "write one such as has(key), key == 'value' or key in {'a', 'b'}"))

    def _bracket(self, column: int) -> Node:
        if len(self._open) == MAX_DEPTH:
            problem = f"bracket number {MAX_DEPTH + 1} is opened inside {MAX_DEPTH} others"
            raise SelectorError(self._text, column, problem, "leave out the brackets that change nothing")
        self._open.append(column)
        node = self._any()
        if not self._take(")"):
            raise self._unexpected("&&, || or )", f"close the bracket of column {column}")
        self._open.pop()
        return node

    def _closed(self, node: Node, form: str) -> Node:
        if not self._take(")"):
            raise self._unexpected(")", f"write {form}")
        return node

    def _key(self, wanted: str, way_out: str) -> str:
        column = self._at + 1
        key = self._read(_KEY)
        if not key:
            raise self._unexpected(wanted, way_out)
        if len(key) > MAX_KEY:
            problem = f"the key {_shorten(key)} has {len(key)} characters"
            raise SelectorError(self._text, column, problem, f"a key has at most {MAX_KEY}")
        return key

    def _test(self, key: str) -> Node:
        operator = self._read(_OPERATOR).translate(_NO_BLANKS)
        if operator in _COMPARISONS:
            return _COMPARISONS[operator](key, self._value())
        if operator in _MEMBERSHIPS:
            return _MEMBERSHIPS[operator](key, self._values())
        way_out = "write ==, !=, in, not in, contains, starts with or ends with; or has(key), to ask only if it is there"
        raise self._unexpected(f"an operator after {_shorten(key)}", way_out)

    def _value(self) -> str:
        value = self._quoted()
        if value is None:
            raise self._unexpected("a value in quotes", "write it as 'value' or \"value\"")
        return value

    def _values(self) -> frozenset[str]:
        if not self._take("{"):
            raise self._unexpected("{", "write the values as {'a', 'b'}")
        values: set[str] = set()
        # A comma may stand behind the last value, but not alone (`TokLBrace` in parseOperation).
        while (value := self._quoted()) is not None:
            values.add(value)
            if not self._take(","):
                break
        if not self._take("}"):
            raise self._unexpected(", or }" if values else "a value in quotes or }", "write the values as {'a', 'b'}")
        return frozenset(values)

    def _quoted(self) -> str | None:
        start = self._at
        if quoted := self._read(_VALUE):
            return quoted[1:-1]
        if self._text.startswith(("'", '"'), start):
            quote = self._text[start]
            way_out = f"close it with {quote}; a value that holds {quote} goes between the other kind of quotes"
            raise SelectorError(self._text, start + 1, f"the quote {quote} is never closed", way_out)
        return None

    def _take(self, word: str) -> bool:
        if not self._text.startswith(word, self._at):
            return False
        self._skip_to(self._at + len(word))
        return True

    def _read(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._skip_to(found.end())
        return found.group()

    def _skip_to(self, at: int) -> None:
        blanks = _BLANKS.match(self._text, at)
        self._at = blanks.end() if blanks else at

    def _unexpected(self, wanted: str, way_out: str) -> SelectorError:
        found = _SHOWN.match(self._text, self._at)
        if found is None:
            problem = f"the text ends where {wanted} should stand"
        else:
            problem = f"found {_shorten(found.group())} where {wanted} should stand"
            if found.group() in "\r\n":
                way_out = "part words by spaces and tabs only; in YAML, begin the block with >- instead of > or |"
        return SelectorError(self._text, self._at + 1, problem, way_out)


def _join(kind: type[And] | type[Or], operands: list[Node]) -> Node:
    """Return the operands as one; `a && (b && c)` becomes `a && b && c`: the same tests in the same order are equal."""
    parts: list[Node] = []
    for operand in operands:
        parts.extend(operand.operands if isinstance(operand, kind) else (operand,))
    return kind(tuple(parts))


def _negate(node: Node) -> Node:
    """Return what takes the opposite; `!!a` is `a` (`parseOperation`), and so is `!(!a)`, which has the same text."""
    return node.operand if isinstance(node, Not) else Not(node)


def _quote(value: str) -> str:
    """Return the value in Calico's quotes: double, if it holds none (`appendLabelOpAndQuotedString` in ast.go)."""
    return f"'{value}'" if '"' in value else f'"{value}"'


def _shorten(word: str) -> str:
    return _printable(word if len(word) <= 40 else f"{word[:39]}…")


def _excerpt(text: str, column: int) -> str:
    """Return the text around a column: selectors are short, but what is refused may be anything."""
    start, end = max(0, column - 41), column + 40
    before, after = "…" if start else "", "…" if end < len(text) else ""
    return f"`{before}{_printable(text[start:end])}{after}`"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
