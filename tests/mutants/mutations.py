"""Every mutation of one C++ file: a small change of code that a test should notice.

Found by tokens, so nothing in comments, text, #include, static_assert, templates' parameters, log statements or prefetches
changes.
The tree is formatted by clang-format, which puts white space on both sides of a binary operator and nowhere around those
of types (`T* x`, `std::vector<T>`), and that is how they are told apart here.
"""

import dataclasses
import re

from cpp_tokens import match_brackets, tokenize

# Operator: what replaces it, each a mutation of its own.
_BINARY = {
    "<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<"), "==": ("!=",), "!=": ("==",),
    "+": ("-",), "-": ("+",), "*": ("/",), "/": ("*",), "%": ("/",), "&&": ("||",), "||": ("&&",),
    "&": ("|",), "|": ("&",), "^": ("&",),
    "+=": ("-=",), "-=": ("+=",), "*=": ("/=",), "/=": ("*=",), "|=": ("&=",), "&=": ("|=",), "<<=": (">>=",), ">>=": ("<<=",),
}
_SHIFTS = {"<<": ">>", ">>": "<<"}
_UNARY = {"++": "--", "--": "++", "!": ""}
_WORDS = {"true": "false", "false": "true"}
_CALLS = {"min": "max", "max": "min", "Min": "Max", "Max": "Min", "all_of": "any_of", "any_of": "all_of"}
_OK, _ERROR = "absl::OkStatus()", 'absl::InternalError("mutant")'

_NO_EXPRESSION = frozenset((
    "if", "for", "while", "switch", "return", "using", "typedef", "static", "const", "constexpr", "auto", "case",
    "default", "do", "else", "try", "goto", "class", "struct", "enum", "friend", "template", "public", "private",
    "protected", "throw", "catch", "delete", "static_assert", "namespace", "extern", "thread_local", "unsigned",
))
_ASSIGNMENTS = frozenset(("=", "+=", "-=", "*=", "/=", "%=", "|=", "&=", "^=", "<<=", ">>=", "++", "--"))
_LOGS = re.compile(r"^(log|log_|logger|logger_|spdlog|LOG)$")
# Calls without which nothing but speed changes.
_ONLY_SPEED = frozenset(("__builtin_prefetch", "reserve"))
# `return {};` is the same as these, or as what changing the constant gives.
_EMPTY = frozenset(("{}", "true", "false", "0", "0.0", "nullptr", "std::nullopt", _OK, "absl::nullopt", '""'))


@dataclasses.dataclass(frozen=True)
class Mutation:
    start: int  # Offsets into the file.
    end: int
    replacement: str
    kind: str

    def apply(self, text):
        return text[: self.start] + self.replacement + text[self.end :]

    def line(self, text):
        """Of its first character, counted from 1."""
        return text.count("\n", 0, self.start) + 1

    def lines(self, text):
        """The lines it touches, before and after, each as one line with single spaces."""
        first, last = text.rfind("\n", 0, self.start) + 1, text.find("\n", self.end)
        last = len(text) if last < 0 else last
        after = text[first : self.start] + self.replacement + text[self.end : last]
        return " ".join(text[first:last].split()), " ".join(after.split())


def mutations(text):
    """All mutations of a file, in the order of their places."""
    return _Finder(text).find()


class _Finder:
    def __init__(self, text):
        self.text = text
        self.tokens = tokenize(text)
        self.partners = match_brackets(self.tokens)
        self.around = self._brackets_around()
        self.skipped = self._skipped()
        self.found = []

    def find(self):
        for i, token in enumerate(self.tokens):
            if i in self.skipped:
                continue
            if token.kind == "code":
                self._operator(i)
            elif token.kind == "number":
                self._number(i)
            elif token.kind == "word":
                self._word(i)
            if self._begins_statement(i):
                self._statement(i)
        return sorted(set(self.found), key=lambda m: (m.start, m.end, m.replacement))

    def _brackets_around(self):
        """For each token the index of the innermost bracket around it, or None."""
        around, stack = [], [None]
        for i, token in enumerate(self.tokens):
            if token.kind == "code" and token.text in ")]}" and i in self.partners:
                stack.pop()
            around.append(stack[-1])
            if token.kind == "code" and token.text in "([{" and i in self.partners:
                stack.append(i)
        return around

    def _add(self, first, last, replacement, kind):
        self.found.append(Mutation(self.tokens[first].start, self.tokens[last].end, replacement, kind))

    def _is(self, i, *texts):
        return 0 <= i < len(self.tokens) and self.tokens[i].text in texts

    def _end_of_statement(self, i):
        """The index of the `;` that ends what begins at i, or None."""
        while i < len(self.tokens):
            if self.tokens[i].text == ";":
                return i
            if self.tokens[i].text in ")]}":
                return None
            i = self.partners.get(i, i) + 1 if self.tokens[i].text in "([{" else i + 1
        return None

    def _skipped(self):
        """Tokens that stay as they are."""
        skipped = set()
        for i, token in enumerate(self.tokens):
            end = None
            if token.text in ("static_assert", "using", "typedef") or (
                    _LOGS.match(token.text) and self._is(i + 1, ".", "->", "::", "(") and self._begins_statement(i)):
                end = self._end_of_statement(i)
            elif token.text in _ONLY_SPEED and self._is(i + 1, "("):
                end = self.partners.get(i + 1)
            elif token.text == "template" and self._is(i + 1, "<"):
                end = self._end_of_angle(i + 1)
            elif token.text == "[" and self._is(i + 1, "["):
                end = self.partners.get(i)
            elif token.text == "operator":
                end = i + 1
            elif token.text == "=" and self._is(i + 1, "0") and self._is(i - 1, ")", "const", "override", "noexcept"):
                end = i + 1  # A pure virtual function.
            if end is not None:
                skipped.update(range(i, end + 1))
        return skipped

    def _end_of_angle(self, i):
        depth = 0
        while i < len(self.tokens):
            depth += {"<": 1, ">": -1, ">>": -2}.get(self.tokens[i].text, 0)
            if depth <= 0:
                return i
            i += 1
        return None

    def _operator(self, i):
        token = self.tokens[i]
        around = self.text[token.start - 1 : token.start] + self.text[token.end : token.end + 1]
        if len(around) == 2 and around.isspace():
            for other in _BINARY.get(token.text, ()):
                self._add(i, i, other, "operator")
            if token.text in _SHIFTS and (self.tokens[i - 1].kind == "number" or self.tokens[i + 1].kind == "number"):
                self._add(i, i, _SHIFTS[token.text], "operator")
        elif token.text in _UNARY:
            self._add(i, i, _UNARY[token.text], "operator" if token.text != "!" else "negation")

    def _number(self, i):
        text = self.tokens[i].text.replace("'", "")
        whole = re.fullmatch(r"(0[xX][\da-fA-F]+|0[bB][01]+|\d+)([uUlLzZ]*)", text)
        real = re.fullmatch(r"([\d.]+(?:[eE][+-]?\d+)?)([fFlL]?)", text)
        if whole and (whole[1] == "0" or whole[1][0] != "0" or whole[1][1:2] in "xXbB"):
            value, suffix = int(whole[1], 0), whole[2]
            around = [value + 1, value - 1]
        elif real:
            value, suffix = float(real[1]), real[2]
            # 1 more is the same number where a float has no room for it.
            around = [value + 1, value - 1] if abs(value) < 2**24 else [2 * value, value / 2]
        else:
            return  # Octal, hexadecimal floating point, or a literal of the user's.
        for other in around:
            self._add(i, i, f"({other}{suffix})" if other < 0 else f"{other}{suffix}", "constant")

    def _word(self, i):
        text = self.tokens[i].text
        if text in _WORDS:
            self._add(i, i, _WORDS[text], "constant")
        elif text in _CALLS and self._is(i - 1, "::") and self._is(i + 1, "(", "<"):
            self._add(i, i, _CALLS[text], "call")
        elif text in ("if", "while") and self._is(i + 1, "("):
            self._condition(i)
        elif text == "return":
            self._return(i)

    def _condition(self, i):
        first, last = i + 2, self.partners.get(i + 1, 0) - 1
        if last < first or self._has_at_top(first, last, ";", "="):
            return  # It declares something that the statement uses.
        self._add(first, last, "false", "condition")
        if self.tokens[i].text == "if":
            self._add(first, last, "true", "condition")
            whole = self.text[self.tokens[first].start : self.tokens[last].end]
            self._add(first, last, f"!({whole})", "condition")

    def _has_at_top(self, first, last, *texts):
        i = first
        while i <= last:
            if self.tokens[i].text in texts:
                return True
            i = self.partners.get(i, i) + 1 if self.tokens[i].text in "([{" else i + 1
        return False

    def _return(self, i):
        end = self._end_of_statement(i)
        if end is None or end == i + 1:
            return
        value = "".join(self.text[self.tokens[i + 1].start : self.tokens[end - 1].end].split())
        if value == _OK:
            self._add(i + 1, end - 1, _ERROR, "return")
        elif value not in _EMPTY:
            self._add(i + 1, end - 1, "{}", "return")

    def _begins_statement(self, i):
        """Whether a statement of a function's body begins here that is not a branch of an if without braces."""
        if not self._is(i - 1, ";", "{", "}"):
            return False
        j = self.around[i]
        return j is not None and self.tokens[j].text == "{" and self._is(
            j - 1, ")", "const", "override", "noexcept", "else", "do", "try", "mutable", ";", "{", "}")

    def _statement(self, i):
        """An expression statement, which can be left out; a declaration cannot."""
        end = self._end_of_statement(i)
        if end is None:
            return None
        if self.tokens[i].text in ("break", "continue") or (self.tokens[i].text == "return" and end == i + 1):
            return self._add(i, end, ";", "statement")
        if self.tokens[i].text in _NO_EXPRESSION or self._is(i, "}", "{", ";", "~"):
            return None
        after = i
        while self.tokens[after].kind == "word" and self._is(after + 1, "::"):
            after += 2
        word = self.tokens[i].kind == "word"
        if any(token.text in _ONLY_SPEED for token in self.tokens[i:end]):
            return None
        next_one = self.tokens[after + 1].text if word else self.tokens[i].text
        if next_one in _ASSIGNMENTS or next_one in (".", "->", "(", "[") or (next_one == "*" and not word):
            self._add(i, end, ";", "statement")
        return None
