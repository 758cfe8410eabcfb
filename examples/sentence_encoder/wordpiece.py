"""BERT's tokenizer: words, lower case and without accents, cut into the longest pieces of a vocabulary."""

import unicodedata

_MAX_WORD = 100  # Longer words are not cut.
_CJK = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F))


class WordPiece:
    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self._pieces = [line.rstrip("\n") for line in file]
        self._ids = {piece: i for i, piece in enumerate(self._pieces)}

    def encode(self, text, max_length):
        """The ids of [CLS], at most max_length - 2 pieces, and [SEP]."""
        pieces = [piece for word in _words(text) for piece in self._cut(word)]
        return [self._ids[piece] for piece in ("[CLS]", *pieces[: max_length - 2], "[SEP]")]

    def text_of(self, number):
        """The piece that an id stands for."""
        return self._pieces[number]

    def _cut(self, word):
        pieces, start = [], 0
        while start < len(word):
            mark = "##" if start else ""
            end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in self._ids), None)
            if end is None or len(word) > _MAX_WORD:
                return ["[UNK]"]
            pieces.append(mark + word[start:end])
            start = end
        return pieces


def _words(text):
    """Words, punctuation marks and Chinese characters of a text."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    spaced = []
    for c in plain:
        category = unicodedata.category(c)
        if c.isspace():
            spaced.append(" ")
        elif category[0] == "C" or c == "\ufffd":
            continue
        elif category[0] == "P" or (c.isascii() and category[0] == "S") or any(low <= ord(c) <= high for low, high in _CJK):
            spaced.append(f" {c} ")
        else:
            spaced.append(c)
    return "".join(spaced).split()
