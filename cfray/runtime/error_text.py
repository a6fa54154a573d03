"""Repeat what a library's error says, without the places in the library's source code.

Lance and Arrow end their messages with the source files of the machine that built them
("/home/builder/lance/rust/lance/src/dataset.rs:921:29").  An operator can do nothing
with them, and they look like files that the operator should have.
"""

from __future__ import annotations

import re

_SOURCE_FILE = r"[^\s,;:()\"']*\.(?:rs|cc|cpp|cxx|hh?|hpp|pxi|pyx)"

#: Rust: ", /path/to/file.rs:921:29", also with "location:" before it.
_RUST_POSITION = re.compile(
    rf"[,;]?\s*(?:\b[Ll]ocation:\s*)?(?:\bat\s+)?{_SOURCE_FILE}:\d+(?::\d+)?"
)
#: Rust's debug form: Location { file: "/path/to/file.rs", line: 921, column: 29 }.
_RUST_LOCATION = re.compile(r"[,;]?\s*(?:\b[Ll]ocation:\s*)?\bLocation\s*\{[^{}]*\}")
#: Arrow's context, a line for each call: "../src/arrow/ipc/reader.cc:740  ReadMessage(file)".
_ARROW_CONTEXT = re.compile(rf"^\s*(?:In\s+)?{_SOURCE_FILE}(?::|, line )\d+.*$", re.MULTILINE)

#: Arrow's words around an error of Azure's, which repeat what was asked for, and may repeat what
#: was to be signed; the code in brackets says what is wrong.
_AZURE_ERROR = re.compile(r"^.*\bAzure Error: \[(\w+)\].*$", re.DOTALL)


def describe_error(error: BaseException | str) -> str:
    """Give the text of an error on one line, without positions in a library's source code.

    Args:
        error: an error of Lance, Arrow or the operating system, or its text.

    Returns:
        The text; the name of the error's type where it has no text.
    """
    text = _AZURE_ERROR.sub(r"Azure answers \1", _ARROW_CONTEXT.sub("", str(error)))
    text = _RUST_POSITION.sub("", _RUST_LOCATION.sub("", text))
    text = re.sub(r"\s*\n\s*", " ", text).strip().rstrip(",;:").rstrip()
    return text or type(error).__name__
