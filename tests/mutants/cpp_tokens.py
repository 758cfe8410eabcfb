"""C++ source as tokens: as much as mutations.py needs to tell code from comments, text and preprocessor lines."""

import dataclasses
import re

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>//[^\n]*|/\*.*?\*/)
  | (?P<string>(?:u8|[uUL])?R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"|(?:u8|[uUL])?"(?:\\.|[^"\\\n])*")
  | (?P<char>(?:u8|[uUL])?'(?:\\.|[^'\\\n])+')
  | (?P<number>(?:0[xX][\da-fA-F']+(?:\.[\da-fA-F']*)?(?:[pP][+-]?\d+)?|0[bB][01']+|(?:\d[\d']*\.?[\d']*|\.\d[\d']*)(?:[eE][+-]?\d+)?)\w*)
  | (?P<word>[A-Za-z_]\w*)
  | (?P<mark_of_code><<=|>>=|<=>|\.\.\.|->\*|::|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[][(){}<>;:,.?=!~+\-*/%&|^\#@\\])
    """,
    re.X | re.S,
)

# A directive with its continuation lines.
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.M)


@dataclasses.dataclass(frozen=True)
class Token:
    kind: str  # word, number, string, char or code (an operator or a bracket)
    text: str
    start: int  # Offset of the first character; `end` is one after the last.
    end: int


def tokenize(text):
    """The tokens of `text` in order, without comments and preprocessor directives."""
    tokens, at = [], 0
    while at < len(text):
        directive = _DIRECTIVE.match(text, at) if at == 0 or text[at - 1] == "\n" else None
        if directive:
            at = directive.end()
            continue
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"cannot read C++ at offset {at}: {text[at:at + 30]!r}")
        # Up to the line's end at a time, so that a directive after white space is seen.
        end = found.end()
        if found["space"] is not None:
            newline = text.find("\n", at, end)
            end = newline + 1 if newline >= 0 else end
        elif found["comment"] is None:
            kind = next(k for k in ("string", "char", "number", "word", "mark_of_code") if found[k] is not None)
            tokens.append(Token("code" if kind == "mark_of_code" else kind, found[0], at, end))
        at = end
    return tokens


_OPEN, _CLOSE = "([{", ")]}"


def match_brackets(tokens):
    """{index of an opening or closing bracket: index of its partner}. Brackets of templates are not brackets here."""
    partners, stack = {}, []
    for i, token in enumerate(tokens):
        if token.kind != "code":
            continue
        if token.text in _OPEN:
            stack.append(i)
        elif token.text in _CLOSE and stack:
            partners[i] = stack.pop()
            partners[partners[i]] = i
    return partners
