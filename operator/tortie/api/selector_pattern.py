r"""The guard by which the API server judges a selector (`tortie.addressing.selector`) at apply.

No regular expression counts brackets, and one that spells out every depth doubles in size with each. But the language
can be judged by three small ones, of which only the last grows with the depth, by 31 characters for each:

- the text doesn't begin with an operator;
- between two tests stands `&&` or `||`; before a test any number of `!` and `(`, behind it any number of `)`;
- outside quotes, brackets match, and nest at most `SELECTOR_DEPTH` deep.

A text that passes all is a selector, because an infix expression goes wrong only where two neighbours don't fit, at an
end, or in its brackets. So the guard accepts exactly what the parser accepts, up to that depth. Syntax: RE2 (google/re2
`doc/syntax.txt`): no lookaround, no repetition above 1,000, and `\w` is ASCII.
"""

from tortie.api.meta import rule

# Characters. A person's selectors have fewer than 200; the cost that the API server allows a rule depends on it.
SELECTOR_MAX_LENGTH = 1024
# What a person can still read.
SELECTOR_DEPTH = 6

_BLANKS = r"[ \t]*"
_KEY = r"[\w./-]{1,512}"
_VALUE = """('[^']*'|"[^"]*")"""
_COMPARISON = rf"({_BLANKS}[!=]=|[ \t]+(contains|(starts|ends){_BLANKS}with)){_BLANKS}{_VALUE}"
_MEMBERSHIP = rf"[ \t]+(not{_BLANKS})?in{_BLANKS}\{{{_BLANKS}({_VALUE}{_BLANKS},{_BLANKS})*({_VALUE}{_BLANKS})?\}}"
_TEST = rf"((all|global)\({_BLANKS}\)|has\({_BLANKS}{_KEY}{_BLANKS}\)|{_KEY}({_COMPARISON}|{_MEMBERSHIP}))"
_START = "^([^&|]|$)"


def _tests() -> str:
    # `^` holds only in the loop's first round, so the test needn't stand once before the loop and once in it. That an
    # operator could stand there too is what `_START` is for.
    return rf"^({_BLANKS}|((^|&&|\|\|)[!( \t]*{_TEST}[) \t]*)+)$"


def _brackets(depth: int) -> str:
    # The innermost pair is that of a has(key), all() or global(): it has room for a key, but for no test.
    inside = r"[\w./ \t-]*"
    for _ in range(depth + 1):
        inside = rf"""([^()'"]|'[^']*'|"[^"]*"|\({inside}\))*"""
    return f"^{inside}$"


SELECTOR_PATTERNS: tuple[str, ...] = (_START, _tests(), _brackets(SELECTOR_DEPTH))

# A raw string in three quotes, so that the patterns stand in CEL as they are: they hold backslashes and both quotes.
SELECTOR_RULE = rule(
    " && ".join(f'self.matches(r"""{pattern}""")' for pattern in SELECTOR_PATTERNS),
    "must be a selector such as all(), has(key), key == 'value', key in {'a', 'b'}, joined by && and ||, with ! and"
    f" parentheses, at most {SELECTOR_DEPTH} brackets deep",
    value="self",
)
