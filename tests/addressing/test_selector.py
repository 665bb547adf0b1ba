"""The selector language: Calico's grammar and meaning in named rows, and properties over generated selectors."""

from collections.abc import Callable, Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tortie.addressing.selector import (
    MAX_DEPTH,
    MAX_KEY,
    All,
    And,
    Contains,
    EndsWith,
    Equal,
    Global,
    Has,
    In,
    Node,
    Not,
    NotEqual,
    NotIn,
    Or,
    Selector,
    SelectorError,
    StartsWith,
    parse,
)

Test = Has | Equal | NotEqual | Contains | StartsWith | EndsWith | In | NotIn

A, B, C = Has("a"), Has("b"), Has("c")

# What is written, and what it means. Rows named "calico: …" are from Calico's parser_test.go and tokenizer_test.go.
GOOD: list[tuple[str, str, Node]] = [
    ("calico: nothing", "", All()),
    ("calico: only blanks", " \t ", All()),
    ("calico: all", " all() ", All()),
    ("blanks inside all", "all( \t)", All()),
    ("calico: global", "global()", Global()),
    ("calico: has", "has(calico/k8s_NS-.1/role)", Has("calico/k8s_NS-.1/role")),
    ("calico: blanks inside has", "has( foo )", Has("foo")),
    ("single quotes", "a == 'b'", Equal("a", "b")),
    ("calico: double quotes, no blanks", 'a=="b"', Equal("a", "b")),
    ("empty value", "a == ''", Equal("a", "")),
    ("the other quote in a value", """a == "'" """, Equal("a", "'")),
    ("no escapes", r"a == '\'", Equal("a", "\\")),
    ("a line break in a value", "a == 'b\nc'", Equal("a", "b\nc")),
    ("letters beyond ASCII in a value", "a == 'é🐱'", Equal("a", "é🐱")),
    ("calico: not equal", """a!='"'""", NotEqual("a", '"')),
    ("calico: contains", 'label contains"value"', Contains("label", "value")),
    ("calico: starts with", 'label starts  with "value"', StartsWith("label", "value")),
    ("calico: startswith", 'label startswith "value"', StartsWith("label", "value")),
    ("calico: ends with", 'label ends\twith "value"', EndsWith("label", "value")),
    ("calico: endswith", "a endswith 'x'", EndsWith("a", "x")),
    ("calico: in, doubled values", "a in {'b', \"c\" ,'b'}", In("a", frozenset({"b", "c"}))),
    ("in without blanks", "a in{'b'}", In("a", frozenset({"b"}))),
    ("in, empty set", "a in {}", In("a", frozenset())),
    ("in, comma behind the last value", "a in {'b', }", In("a", frozenset({"b"}))),
    ("calico: not in, empty set", "a not in {}", NotIn("a", frozenset())),
    ("calico: notin", "a notin{'b'}", NotIn("a", frozenset({"b"}))),
    ("not in, many blanks", "a  not \t in  {'b'}", NotIn("a", frozenset({"b"}))),
    ("calico: operators as keys", "contains contains 'contains'", Contains("contains", "contains")),
    ("functions as keys", "has == 'x' && all != 'y'", And((Equal("has", "x"), NotEqual("all", "y")))),
    ("in as key", "in in {'in'}", In("in", frozenset({"in"}))),
    ("a key of digits and signs", "-./_9 == 'x'", Equal("-./_9", "x")),
    ("the longest key", f"has({'k' * MAX_KEY})", Has("k" * MAX_KEY)),
    ("calico: not has", "! has(a)", Not(A)),
    ("not binds a whole comparison", "!a == 'b'", Not(Equal("a", "b"))),
    ("calico: not not", "!!has(a)", A),
    ("calico: three nots", "!! ! has(a)", Not(A)),
    ("not of a bracketed not", "!(!has(a))", A),
    ("and before or", "has(a) || has(b) && has(c)", Or((A, And((B, C))))),
    ("and before or, the other way round", "has(a) && has(b) || has(c)", Or((And((A, B)), C))),
    ("brackets before and", "(has(a) || has(b)) && has(c)", And((Or((A, B)), C))),
    ("not before and", "!has(a) && has(b)", And((Not(A), B))),
    ("not before brackets", "!(has(a) && has(b))", Not(And((A, B)))),
    ("and is associative", "has(a) && (has(b) && has(c))", And((A, B, C))),
    ("or is associative", "(has(a) || has(b)) || has(c)", Or((A, B, C))),
    ("no blanks around operators", "has(a)&&has(b)||has(c)", Or((And((A, B)), C))),
    ("brackets around everything", " ( ( all() ) ) ", All()),
    ("brackets and operators in values", "a == '&& (' && b == ')'", And((Equal("a", "&& ("), Equal("b", ")")))),
]


@pytest.mark.parametrize(("text", "tree"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_reads(text: str, tree: Node) -> None:
    assert parse(text).root == tree


# What is written, the column of the mistake, what the problem says, what the way out says.
BAD: list[tuple[str, str, int, str, str]] = [
    ("calico: label compared with label", "b == b", 6, "found b where a value in quotes", "'value'"),
    ("calico: contains label", "b contains b", 12, "found b where a value in quotes", "'value'"),
    ("calico: value on the left", "'b1' == b", 1, "found 'b1' where a test", "key == 'value'"),
    ("calico: bare label", "b", 2, "the text ends where an operator after b", "has(key)"),
    ("calico: bare label and blank", "a ", 3, "the text ends where an operator", "has(key)"),
    ("calico: two labels", "a b", 3, "found b where an operator after a", "starts with"),
    ("calico: unknown operator", 'label squiggles "value"', 7, "found squiggles where an operator", "contains"),
    ("calico: starts foo", 'label starts foo "value"', 7, "found starts where an operator", "starts with"),
    ("an operator glued to a value's word", "a containsb 'c'", 3, "found containsb where an operator", "contains"),
    ("a key glued to its operator", "ain {'x'}", 5, "found { where an operator after ain", "in"),
    ("one equals sign", "a = 'b'", 3, "found = where an operator after a", "=="),
    ("an operator without a key", "has(a) && != 'b'", 11, "found != where a test", "has(key)"),
    ("a parted !=", "a ! = 'b'", 3, "found ! where an operator", "!="),
    ("calico: only not", "!", 2, "the text ends where a test", "has(key)"),
    ("calico: one ampersand", 'foo == "bar" &', 14, "found & where && or ||", "&&"),
    ("calico: one bar", 'foo == "bar" |', 14, "found | where && or ||", "||"),
    ("calico: nothing after and", "has(foo) &&", 12, "the text ends where a test", "has(key)"),
    ("calico: operator for a value", "foo != ||", 8, "found || where a value in quotes", "'value'"),
    ("calico: set not closed", 'foo in {"", ||', 13, "found || where , or }", "{'a', 'b'}"),
    ("calico: in without a set", 'foo in ""', 8, 'found "" where {', "{'a', 'b'}"),
    ("set with only a comma", "a in {,}", 7, "found , where a value in quotes or }", "{'a', 'b'}"),
    ("set without commas", "a in {'b' 'c'}", 11, "found 'c' where , or }", "{'a', 'b'}"),
    ("calico: quote not closed", '"FOO', 1, 'found " where a test', "key == 'value'"),
    ("value not closed", "a == \"FOO'", 6, 'the quote " is never closed', 'close it with "'),
    ("value in a set not closed", "a in {'b', 'c}", 12, "the quote ' is never closed", "close it with '"),
    ("calico: bracket not closed", '(a == "foo"', 12, "the text ends where &&, || or )", "bracket of column 1"),
    ("inner bracket closed", "has(a) && ((has(b))", 20, "the text ends", "bracket of column 11"),
    ("calico: only an opened bracket", "(", 2, "the text ends where a test", "has(key)"),
    ("calico: only a closed bracket", ")", 1, "found ) where a test", "has(key)"),
    ("calico: empty brackets", "()", 2, "found ) where a test", "has(key)"),
    ("one bracket too many", "has(a))", 7, "found ) where && or ||", "open a bracket"),
    ("two tests", "has(a) has(b)", 8, "found has where && or ||", "&&"),
    ("has without a key", "has()", 5, "found ) where a key", "has(key)"),
    ("has of a value", "has('a')", 5, "found 'a' where a key", "no quotes"),
    ("has not closed", "has(a", 6, "the text ends where )", "has(key)"),
    ("all with a key", "all(a)", 5, "found a where )", "all()"),
    ("global not closed", "global( ", 9, "the text ends where )", "global()"),
    ("a blank before has's bracket", "has (a)", 5, "found ( where an operator after has", "has(key)"),
    ("calico: a sign that is no word", 'a == "b" && %', 13, "found % where a test", "has(key)"),
    ("a letter beyond ASCII in a key", "é == 'a'", 1, "found é where a test", "has(key)"),
    ("a line break at the end", "has(a)\n", 7, r"found \n where && or ||", ">-"),
    ("a line break between words", "has(a) &&\r\nhas(b)", 10, r"found \r where a test", ">-"),
    ("a blank that is none of Calico's", "has(a)\u00a0", 7, r"found \xa0 where", "&&"),
    ("a key too long", f"has(a) && {'k' * (MAX_KEY + 1)} == 'x'", 11, "has 513 characters", "at most 512"),
    ("brackets too deep", "(" * (MAX_DEPTH + 1), MAX_DEPTH + 1, "bracket number 33", "leave out"),
]


@pytest.mark.parametrize(("text", "column", "problem", "way_out"), [r[1:] for r in BAD], ids=[r[0] for r in BAD])
def test_refuses_and_says_where(text: str, column: int, problem: str, way_out: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    error = caught.value
    assert (error.text, error.column) == (text, column)
    assert problem in error.problem
    assert way_out in error.way_out


def test_message_is_whole() -> None:
    with pytest.raises(SelectorError) as caught:
        parse("has(rack) && zone == b")
    assert str(caught.value) == (
        "found b where a value in quotes should stand @ column 22 of selector `has(rack) && zone == b`:"
        " write it as 'value' or \"value\""
    )


def test_message_of_a_long_text_shows_only_the_place() -> None:
    with pytest.raises(SelectorError) as caught:
        parse("has(a) && " * 100 + "%" + " && has(z)" * 100)
    message = str(caught.value)
    assert "found % where a test" in message
    assert "@ column 1001 of selector `…" in message
    assert "has(a) && % && has(z)" in message
    assert len(message) < 300


# A selector, labels that it takes, labels that it doesn't.
MEANINGS: list[tuple[str, str, list[dict[str, str]], list[dict[str, str]]]] = [
    ("everything", "", [{}, {"a": "b"}], []),
    ("global takes everything", "global()", [{}, {"a": "b"}], []),
    ("has", "has(a)", [{"a": ""}, {"a": "b"}], [{}, {"b": "a"}]),
    ("equal", "a == 'b'", [{"a": "b", "c": "d"}], [{}, {"a": "c"}, {"b": "b"}]),
    ("equal to nothing needs the label", "a == ''", [{"a": ""}], [{}]),
    ("not equal takes a missing label", "a != 'b'", [{}, {"a": "c"}], [{"a": "b"}]),
    ("in needs the label", "a in {'b', ''}", [{"a": "b"}, {"a": ""}], [{}, {"a": "c"}]),
    ("in nothing takes nothing", "a in {}", [], [{}, {"a": ""}]),
    ("not in takes a missing label", "a not in {'b', 'c'}", [{}, {"a": "d"}], [{"a": "b"}, {"a": "c"}]),
    ("not in nothing takes everything", "a not in {}", [{}, {"a": ""}], []),
    ("contains", "a contains 'a'", [{"a": "bab"}], [{}, {"a": "b"}, {"b": "aaa"}]),
    ("contains nothing needs the label", "a contains ''", [{"a": ""}, {"a": "b"}], [{}]),
    ("starts with", "a starts with 'ab'", [{"a": "ab"}, {"a": "abc"}], [{}, {"a": "b"}, {"a": "cab"}]),
    ("starts with nothing needs the label", "a starts with ''", [{"a": "b"}], [{}]),
    ("ends with", "a ends with 'ab'", [{"a": "ab"}, {"a": "cab"}], [{}, {"a": "b"}, {"a": "abc"}]),
    ("ends with nothing needs the label", "a ends with ''", [{"a": "b"}], [{}]),
    ("not of equal takes a missing label", "!a == 'b'", [{}, {"a": "c"}], [{"a": "b"}]),
    ("not of not equal needs the label", "!a != 'b'", [{"a": "b"}], [{}, {"a": "c"}]),
    ("and", "has(a) && has(b)", [{"a": "", "b": ""}], [{}, {"a": ""}, {"b": ""}]),
    ("or", "has(a) || has(b)", [{"a": ""}, {"b": ""}], [{}, {"c": ""}]),
    ("and binds closer than or", "has(a) || has(b) && has(c)", [{"a": ""}, {"b": "", "c": ""}], [{}, {"b": ""}]),
    ("labels are case-sensitive", "A == 'b'", [{"A": "b"}], [{"a": "b"}, {"A": "B"}]),
]


@pytest.mark.parametrize(("text", "taken", "left"), [row[1:] for row in MEANINGS], ids=[row[0] for row in MEANINGS])
def test_means(text: str, taken: list[dict[str, str]], left: list[dict[str, str]]) -> None:
    selector = parse(text)
    assert [labels for labels in taken if not selector.matches(labels)] == []
    assert [labels for labels in left if selector.matches(labels)] == []


CANONICAL: list[tuple[str, str, str]] = [
    ("calico: nothing", "", "all()"),
    ("calico: brackets", " (all() )", "all()"),
    ("calico: not before brackets", "! (has( b)||! has(a ))", "!(has(b) || !has(a))"),
    ("calico: not before a comparison", """! (a == "b"&&! c != "d")""", """!(a == "b" && !c != "d")"""),
    ("calico: double quotes first", "a == 'b'", 'a == "b"'),
    ("calico: single quotes where it must", """a contains '"'""", """a contains '"'"""),
    ("calico: words of an operator", "a startswith 'b'", 'a starts with "b"'),
    ("calico: values sorted, once each", "a in {'z', 'x', 'z', 'a'}", 'a in {"a", "x", "z"}'),
    ("no values", "a notin{}", "a not in {}"),
    ("only the brackets it needs", "((has(a)) || (has(b) && (has(c))))", "has(a) || has(b) && has(c)"),
    ("the brackets it needs", "((has(a) || has(b)) && !(has(c)))", "(has(a) || has(b)) && !has(c)"),
]


@pytest.mark.parametrize(("text", "canonical"), [row[1:] for row in CANONICAL], ids=[row[0] for row in CANONICAL])
def test_canonical_text(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    assert str(parse(canonical)) == canonical


def test_equal_by_canonical_text() -> None:
    selector = parse("a == 'b'")
    assert selector == parse('(a=="b")')
    assert hash(selector) == hash(parse('(a=="b")'))
    assert selector != parse("a == 'c'")
    assert selector != "a == 'b'"
    assert repr(selector) == "Selector('a == \"b\"')"


def test_a_text_is_read_once() -> None:
    assert parse("read == 'once'") is parse("read == 'once'")


def nested(depth: int) -> str:
    return "!(has(a) || has(b) && " * depth + "has(c)" + ")" * depth


def deep_in_the_stack(frames: int, call: Callable[[], object]) -> object:
    return call() if frames == 0 else deep_in_the_stack(frames - 1, call)


def test_deepest_brackets_work_from_deep_in_the_stack() -> None:
    def judge() -> bool:
        selector = parse(nested(MAX_DEPTH))
        return selector == parse(str(selector)) and not selector.matches({"a": ""})

    assert deep_in_the_stack(500, judge)


def test_brackets_beside_each_other_are_not_deep() -> None:
    beside = " && ".join(["(has(a))"] * (2 * MAX_DEPTH))
    assert parse(beside).matches({"a": ""})


MEGABYTE = 1_000_000
HOSTILE: list[tuple[str, str]] = [
    ("brackets", "(" * MEGABYTE),
    ("nots", "!" * MEGABYTE),
    ("blanks, then a sign", " " * MEGABYTE + "%"),
    ("blanks inside an operator", "a starts" + " " * MEGABYTE),
    ("blanks inside a function", "has(" + " " * MEGABYTE),
    ("nots and blanks", "! " * (MEGABYTE // 2)),
    ("a key", "k" * MEGABYTE),
    ("a value never closed", "a == '" + "x" * MEGABYTE),
    ("values", "a in {" + "'b'," * (MEGABYTE // 4)),
    ("tests", "has(a) && " * (MEGABYTE // 10)),
    ("tests in brackets", "(has(a)) || " * (MEGABYTE // 12)),
    ("line breaks", "has(a)" + "\n" * MEGABYTE),
]


@pytest.mark.parametrize("text", [row[1] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_megabyte_ends_in_a_short_error(text: str) -> None:
    # A reader that looks at each character as often as there are others would need days.
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert len(str(caught.value)) < 500


keys = st.text("ab/.-_7", min_size=1, max_size=3) | st.sampled_from(["in", "not", "has", "all", "contains", "starts"])
raw_values = st.text("ab'(&", max_size=3) | st.text('ab"} ', max_size=3)
value_sets = st.frozensets(raw_values, max_size=3)
leaves: st.SearchStrategy[Node] = st.one_of(
    st.just(All()),
    st.just(Global()),
    st.builds(Has, keys),
    *(st.builds(kind, keys, raw_values) for kind in (Equal, NotEqual, Contains, StartsWith, EndsWith)),
    *(st.builds(kind, keys, value_sets) for kind in (In, NotIn)),
)


def joined(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    """Return trees as the parser makes them: no `And` directly in an `And`, no `Or` in an `Or`, no `Not` in a `Not`."""

    def operands(kind: type[Node]) -> st.SearchStrategy[tuple[Node, ...]]:
        return st.lists(nodes.filter(lambda n: not isinstance(n, kind)), min_size=2, max_size=3).map(tuple)

    return st.one_of(
        nodes.filter(lambda n: not isinstance(n, Not)).map(Not),
        operands(And).map(And),
        operands(Or).map(Or),
    )


trees: st.SearchStrategy[Node] = st.recursive(leaves, joined, max_leaves=12)
label_sets = st.dictionaries(st.sampled_from(["a", "b", "in", "has"]), st.text("ab'", max_size=3), max_size=3)


@given(trees)
def test_a_tree_reads_back_from_its_text(tree: Node) -> None:
    selector = Selector(tree)
    assert parse(str(selector)).root == tree
    assert parse(str(selector)) == selector


def evaluate(node: Node, labels: Mapping[str, str]) -> bool:
    """Judge as Calico's ast.go says, case by case."""
    match node:
        case All() | Global():
            return True
        case Not(operand):
            return not evaluate(operand, labels)
        case And(operands):
            return all(evaluate(operand, labels) for operand in operands)
        case Or(operands):
            return any(evaluate(operand, labels) for operand in operands)
        case _:
            found = labels.get(node.key)
            return compare(node, found) if found is not None else isinstance(node, NotEqual | NotIn)


def compare(node: Test, found: str) -> bool:
    """Judge the value of a label that is there, one truth a kind of test."""
    if isinstance(node, Has):
        return True
    if isinstance(node, In | NotIn):
        return any(value == found for value in node.values) == isinstance(node, In)
    value, size = node.value, len(node.value)
    places = {i for i in range(len(found) - size + 1) if found[i : i + size] == value}
    return {
        Equal: found == value,
        NotEqual: found != value,
        Contains: bool(places),
        StartsWith: 0 in places,
        EndsWith: len(found) - size in places,
    }[type(node)]


@given(trees, label_sets)
def test_evaluates_as_the_plain_evaluator(tree: Node, labels: dict[str, str]) -> None:
    assert parse(str(Selector(tree))).matches(labels) == evaluate(tree, labels)


words = st.sampled_from(
    [
        *"()!{},'\"= &\t\n\0é\ud800",
        "&&",
        "||",
        "==",
        "!=",
        "'v'",
        '"v"',
        "k",
        "has(",
        "all()",
        "in",
        "not",
        *("contains", "starts", "with", "ends"),
    ]
)


@given(st.text(max_size=30) | st.lists(words, max_size=15).map("".join) | st.lists(words, max_size=15).map(" ".join))
@example("\ud800")
def test_any_text_is_a_selector_or_a_selector_error(text: str) -> None:
    try:
        selector = parse(text)
    except SelectorError as caught:
        error = caught
    else:
        assert parse(str(selector)) == selector
        return
    assert 1 <= error.column <= len(text) + 1
    assert str(error).isprintable()
