"""What a text looks like: prose that a person reads, or data that a program wrote.

Only the head of a text is looked at.  The text of a document is prose; JSON, base64, numbers and
addresses are never offered as one, whatever their field is called.
"""

from __future__ import annotations

import re

#: Scripts that write no spaces between words: Thai to Tibetan, Burmese, Khmer, Kana, Han.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
#: The beginning of a JSON object, or of a JSON list.
_JSON_HEAD = re.compile(
    r"""\s*(\{\s*("|'|\})|\[\s*(["'\[{\]]|-?\d|null|true|false|nan))""", re.IGNORECASE
)
#: Characters in one word from which on it is an encoding and no word of a language.
_LONG_WORD = 40
_ENCODED = re.compile(rf"[A-Za-z0-9+/=_-]{{{_LONG_WORD},}}")
#: Least share of letters among the characters that are no spaces.
_LETTERS = 0.6


def is_data(text: str) -> bool:
    """Tell a text that a program wrote for a program: JSON, base64, hexadecimal, numbers."""
    words = text.split()
    if not words:
        return False
    if _JSON_HEAD.match(text):
        return True
    encoded_characters = sum(len(word) for word in words if _ENCODED.fullmatch(word))
    characters = sum(map(len, words))
    if 2 * encoded_characters > characters:
        return True
    return not any(letter.isalpha() for letter in text)


def is_prose(text: str) -> bool:
    """Tell a text of several words, most of whose characters are letters."""
    if is_data(text):
        return False
    characters = [letter for letter in text if not letter.isspace()]
    letters = sum(letter.isalpha() for letter in characters)
    several_words = " " in text.strip() or bool(_UNSPACED.search(text))
    return several_words and letters >= _LETTERS * len(characters)
