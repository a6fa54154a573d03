"""Estimate tokens without a tokenizer: 4 bytes of UTF-8 are a token, as in English prose.

For digits or Chinese the estimate is too low; there the operator gives a smaller
``max_tokens``.

Source: https://help.openai.com/en/articles/4936856.
"""

from __future__ import annotations

#: Bytes of UTF-8 that are taken for a token.
_TOKEN_BYTES = 4


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // _TOKEN_BYTES)


def truncate(text: str, tokens: int) -> str:
    """Keep so many tokens of a text, less a last character that the cut would divide."""
    data, size = text.encode(), tokens * _TOKEN_BYTES
    return text if len(data) <= size else data[: _character_start(data, size)].decode()


def split_text(text: str, tokens: int, overlap: int) -> list[str]:
    """Split a text into parts of at most ``tokens`` tokens, behind white space where it has some.

    Each part begins ``overlap`` tokens before the end of the part before it.  Joined without their
    overlaps, the parts are the text.

    Raises:
        ValueError: ``overlap`` is not smaller than ``tokens``.
    """
    if not 0 <= overlap < tokens:
        raise ValueError(f"an overlap of {overlap} tokens in parts of {tokens} tokens")
    data = text.encode("utf-8", "surrogatepass")
    ranges, start = [], 0
    while len(data) - start > tokens * _TOKEN_BYTES:
        # A part ends behind what the next part repeats, so that each begins after the last.
        earliest_end = start + overlap * _TOKEN_BYTES
        latest_end = _character_start(data, start + tokens * _TOKEN_BYTES)
        end = _word_end(data, earliest_end, latest_end)
        ranges.append(slice(start, end))
        start = _character_start(data, end - overlap * _TOKEN_BYTES, step=1)
    ranges.append(slice(start, len(data)))
    return [data[bounds].decode("utf-8", "surrogatepass") for bounds in ranges]


def _character_start(data: bytes, position: int, step: int = -1) -> int:
    """Find where a character begins, at ``position`` or before it; after it with a step of 1."""
    while position < len(data) and data[position] & 0xC0 == 0x80:
        position += step
    return position


def _word_end(data: bytes, after: int, end: int) -> int:
    """Find the end of the last white space between ``after`` and ``end``; ``end`` without any."""
    return max(data.rfind(space, after, end) for space in (b" ", b"\n", b"\t")) + 1 or end
