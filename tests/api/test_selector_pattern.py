"""The API server's guard takes exactly the selectors that the parser takes, to its depth; `re` stands in for RE2."""

import math
import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.addressing.selector import MAX_KEY, SelectorError, parse
from tortie.api.selector_pattern import SELECTOR_DEPTH, SELECTOR_MAX_LENGTH, SELECTOR_PATTERNS, SELECTOR_RULE

# RE2's `$` is the end of the text and its `\w` is ASCII; Python's `$` also stands before a last line break.
STAND_INS = [re.compile(pattern.replace("$", r"\Z"), re.ASCII) for pattern in SELECTOR_PATTERNS]


def guard_takes(text: str) -> bool:
    return all(pattern.search(text) for pattern in STAND_INS)


def parser_takes(text: str) -> bool:
    try:
        parse(text)
    except SelectorError:
        return False
    return depth(text) <= SELECTOR_DEPTH


def depth(text: str) -> int:
    """Return how deep the brackets of a selector nest, those of values and of functions left out."""
    bare = re.sub(r"(has|all|global)\([^()]*\)", "", re.sub(r"""'[^']*'|"[^"]*\"""", "", text))
    deepest = now = 0
    for bracket in re.findall("[()]", bare):
        now += 1 if bracket == "(" else -1
        deepest = max(deepest, now)
    return deepest


def bracketed(count: int, inside: str) -> str:
    return "(" * count + inside + ")" * count


TAKEN: list[tuple[str, str]] = [
    ("nothing", ""),
    ("blanks", " \t "),
    ("every kind of test", "all() && global() && has(a) && a == 'b' && a != 'b' && a in {'b'} && a not in {'b', 'c'}"),
    ("every kind of test with words", "a contains 'b' || a starts with 'b' || a ends with 'b'"),
    ("as few blanks as can be", "!has(a)&&(a=='b'||a\tin{'b','c',}||a notin{}||a startswith'b')"),
    ("as many blanks", " ! ( has( a ) && a  ==  'b' ) || a  not  in  { 'b' , 'c' , } || all( )  "),
    ("brackets and operators in values", "a == ')' && b == \"('\" && c == '&& ||'"),
    ("line breaks and letters beyond ASCII in values", "a == '\n' && b == 'é🐱'"),
    ("functions as keys", "has == 'x' && all in {'y'} && in in {'z'} && not not in {'z'}"),
    ("brackets as deep as allowed", bracketed(SELECTOR_DEPTH, "a == 'b'")),
    ("a function in the deepest brackets", bracketed(SELECTOR_DEPTH, "!has( a/b )")),
    ("the longest key", f"has({'k' * MAX_KEY})"),
    ("the longest key that is compared", f"{'k' * MAX_KEY} == 'b'"),
    ("the longest text", "a == '" + "é" * (SELECTOR_MAX_LENGTH - 7) + "'"),
    ("many nots", "!" * (SELECTOR_MAX_LENGTH - 6) + "has(a)"),
]
REFUSED: list[tuple[str, str]] = [
    ("a line break behind", "has(a)\n"),
    ("a line break alone", "\n"),
    ("a bracket not closed", "(has(a)"),
    ("a bracket too many", "has(a))"),
    ("brackets the wrong way round", "has(a)) && (has(b)"),
    ("empty brackets", "()"),
    ("a key in brackets", "(a)"),
    ("two tests", "has(a) has(b)"),
    ("two brackets", "(has(a))(has(b))"),
    ("no test before and", "&& has(a)"),
    ("no test before or", "|| has(a)"),
    ("no test before and, but a blank", " && has(a)"),
    ("no test between and and or", "has(a) && || has(b)"),
    ("no test behind or", "has(a) ||"),
    ("one ampersand", "has(a) & has(b)"),
    ("a key alone", "a"),
    ("a blank before has's bracket", "has (a)"),
    ("a key glued to its operator", "ain {'b'}"),
    ("a set with only a comma", "a in {,}"),
    ("a set without commas", "a in {'b' 'c'}"),
    ("a value without quotes", "a == b"),
    ("a quote not closed", "a == 'b"),
    ("a key beyond ASCII", "é == 'b'"),
    ("a key too long", f"has({'k' * (MAX_KEY + 1)})"),
    ("a key too long that is compared", f"{'k' * (MAX_KEY + 1)} == 'b'"),
    ("brackets too deep", bracketed(SELECTOR_DEPTH + 1, "a == 'b'")),
    ("brackets too deep around a function", bracketed(SELECTOR_DEPTH + 1, "all()")),
    ("brackets too deep around an empty set", bracketed(SELECTOR_DEPTH + 1, "a in {}")),
    ("brackets too deep, empty", bracketed(SELECTOR_DEPTH + 1, "")),
]


@pytest.mark.parametrize("text", [row[1] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_takes(text: str) -> None:
    assert len(text) <= SELECTOR_MAX_LENGTH
    assert guard_takes(text)
    assert parser_takes(text)


@pytest.mark.parametrize("text", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refuses(text: str) -> None:
    assert not guard_takes(text)
    assert not parser_takes(text)


ALPHABETS: list[tuple[str, int, tuple[str, ...]]] = [
    ("brackets and operators", 7, ("(", ")", "!", "&&", "has(a)")),
    ("comparisons", 5, ("a", " ", "=", "!", "'b'", "contains", "starts", "with", "&&")),
    ("sets", 6, ("a ", "not", "in", "{", "}", "'b'", ",")),
    ("functions", 5, ("has", "all", "(", ")", "a", " ", "=='b'")),
]


@pytest.mark.parametrize(("length", "words"), [row[1:] for row in ALPHABETS], ids=[row[0] for row in ALPHABETS])
def test_agrees_with_the_parser_on_every_short_text(length: int, words: tuple[str, ...]) -> None:
    texts = {"".join(chosen) for n in range(length + 1) for chosen in product(words, repeat=n)}
    assert [text for text in texts if guard_takes(text) != parser_takes(text)] == []
    assert any(map(guard_takes, texts))


blanks = st.sampled_from(["", " ", "\t", "  "])
keys = st.sampled_from(["a", "b/c", "in", "not", "has", "all", "-._", "k" * MAX_KEY])
values = st.builds("{0}{1}{0}".format, st.just("'"), st.text('("){&\né', max_size=3)) | st.builds(
    "{0}{1}{0}".format, st.just('"'), st.text("('){&\né", max_size=3)
)
word_operators = st.builds(
    "{}{}{}".format, st.sampled_from([" ", "\t "]), st.sampled_from(["contains", "starts with", "endswith"]), blanks
)
operators = word_operators | st.builds("{}{}{}".format, blanks, st.sampled_from(["==", "!="]), blanks)
members = st.builds("{}{}{}".format, blanks, values, blanks)
sets = st.builds(
    lambda listed, last: "{" + ",".join(listed) + (last if listed else "") + "}",
    st.lists(members, max_size=3),
    st.sampled_from(["", ",", ", "]),
)
tests = st.one_of(
    st.builds("{}({})".format, st.sampled_from(["all", "global"]), blanks),
    st.builds("has({}{}{})".format, blanks, keys, blanks),
    st.builds("{}{}{}".format, keys, operators, values),
    st.builds("{} {}{}{}".format, keys, st.sampled_from(["in", "not in", "notin"]), blanks, sets),
)


@st.composite
def selectors(draw: st.DrawFn, depth: int = SELECTOR_DEPTH + 2) -> str:
    """Draw a selector with at most `depth` brackets in each other: a little more than the guard takes."""
    terms = []
    for _ in range(draw(st.integers(1, 2))):
        inside = draw(selectors(depth - 1)) if depth and draw(st.integers(0, 2)) else None
        term = draw(tests) if inside is None else f"({inside})"
        terms.append(draw(blanks) + draw(st.sampled_from(["", "", "!", "!! "])) + term + draw(blanks))
    return draw(st.sampled_from(["&&", "||"])).join(terms)


@given(selectors())
def test_takes_every_selector_to_its_depth(text: str) -> None:
    parse(text)
    assert guard_takes(text) == (depth(text) <= SELECTOR_DEPTH)


@st.composite
def spoiled(draw: st.DrawFn) -> str:
    """Draw a selector in which one or two characters are changed, added or left out."""
    text = draw(selectors(2))
    for _ in range(draw(st.integers(1, 2))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 1))
        text = text[:start] + draw(st.text("()!&|{},'\"= \tahns\né", max_size=1)) + text[end:]
    return text


@given(spoiled())
def test_agrees_with_the_parser_on_what_is_nearly_a_selector(text: str) -> None:
    assert guard_takes(text) == parser_takes(text)


def test_the_rule_holds_the_patterns_as_they_are() -> None:
    # In a raw string of three quotes CEL changes nothing, so long as no three quotes stand in it or a quote at its end.
    assert re.fullmatch(r'self\.matches\(r""".*?"""\)( && self\.matches\(r""".*?"""\))*', SELECTOR_RULE["rule"])
    assert tuple(re.findall(r'matches\(r"""(.*?)"""\)', SELECTOR_RULE["rule"])) == SELECTOR_PATTERNS
    assert SELECTOR_RULE["message"].startswith("must be a selector such as all(), has(key), key == 'value'")
    assert SELECTOR_RULE["message"].endswith("at most 6 brackets deep")


@pytest.mark.parametrize("pattern", SELECTOR_PATTERNS, ids=["start", "tests", "brackets"])
def test_a_pattern_is_re2(pattern: str) -> None:
    assert pattern.startswith("^")
    assert "$" in pattern
    assert not re.search(r"\(\?|\\[1-9]|[*+?}]\+", pattern), "no lookaround, back-reference or possessive repeat"
    assert all(int(count) <= 1000 for count in re.findall(r"\{\d*,?(\d+)\}", pattern))


def test_the_rule_costs_little_of_what_the_api_server_allows() -> None:
    # cel-go's estimate for `matches` (checker/cost.go), with four bytes a character as Kubernetes counts a maxLength.
    # An API server 1.34 says the same: 54,500. It allows a rule 10,000,000, and all rules of a CRD ten times that.
    text = math.ceil((4 * SELECTOR_MAX_LENGTH + 1) * 0.1)
    assert sum(text * math.ceil(len(pattern) * 0.25) for pattern in SELECTOR_PATTERNS) < 10_000_000 / 100
