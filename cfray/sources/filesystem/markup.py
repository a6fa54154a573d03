"""The text of an HTML page as a reader sees it, and what its head says of it.

Runs in the extractor's process, for a page may be made to take for ever.  Standard library only.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

#: Elements whose content is not shown.
_HIDDEN = frozenset({"script", "style", "template", "noscript", "svg"})
#: Elements that begin a line and end one.
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "legend",
        "li",
        "main",
        "menu",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
    ]
)
_CELLS = frozenset({"td", "th"})
_SPACE = re.compile(r"[ \t\n\r\f]+")
#: Names of ``meta`` elements that become properties.
_PROPERTIES = frozenset({"author", "description", "keywords", "generator", "date"})


class _Page(HTMLParser):
    """A page as it is read.

    Attributes:
        hidden: elements whose content is not shown.
        parts: of the text.
        title: parts of the title.
        heading: parts of the first heading of the first level.
        properties: name -> value.
        open: the hidden elements that are open.
    """

    def __init__(self, hidden: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.hidden = hidden
        self.parts: list[str] = []
        self.title: list[str] = []
        self.heading: list[str] = []
        self.properties: dict[str, object] = {}
        self.open: list[str] = []
        self._preformatted = 0
        self._in_title = False
        self._in_heading = 0
        self._in_row = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.open:
            if tag == self.open[0]:
                self.open.append(tag)
        elif tag in self.hidden:
            self.open.append(tag)
        elif tag == "title" and not self.title:
            self._in_title = True
        elif tag == "meta":
            self._add_property({key: value or "" for key, value in attrs})
        elif tag == "br":
            self.parts.append("\n")
        elif tag in _BLOCKS:
            self._break(tag)
            self._preformatted += tag == "pre"
            self._in_heading += tag == "h1" and not "".join(self.heading).strip()
        elif tag in _CELLS:
            self.parts.append("\t" if self._in_row else "")
            self._in_row = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # <script/> is no end for a browser, but is one in XHTML
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open:
            if tag == self.open[0]:
                self.open.pop()
        elif tag == "title":
            self._in_title = False
        elif tag in _BLOCKS:
            self._break(tag)
            if tag == "pre" and self._preformatted:
                self._preformatted -= 1
            if tag == "h1":
                self._in_heading = 0

    def handle_data(self, data: str) -> None:
        if self.open:
            return
        if self._in_title:
            self.title.append(data)
            return
        if self._in_heading:
            self.heading.append(data)
        self.parts.append(data if self._preformatted else _SPACE.sub(" ", data))

    def _break(self, tag: str) -> None:
        self._in_row = False if tag == "tr" else self._in_row
        self.parts.append("\n" if tag in ("li", "tr", "dt", "dd", "option") else "\n\n")

    def _add_property(self, attributes: dict[str, str]) -> None:
        name = attributes.get("name", "").lower()
        if name in _PROPERTIES and attributes.get("content", "").strip():
            self.properties.setdefault(name, attributes["content"].strip())


def read_html(text: str) -> dict[str, object]:
    """Give ``text``, ``title`` and ``properties`` of a page.

    A table's row is a line with tabs between its cells; preformatted text keeps its spaces.
    """
    hidden = _HIDDEN
    while True:
        page = _Page(hidden)
        page.feed(text)
        page.close()
        if not page.open:
            break
        # an element without an end would hide all that is behind it
        hidden -= {page.open[0]}
    title = _one_line(page.title) or _one_line(page.heading)
    return {"text": _tidy("".join(page.parts)), "title": title, "properties": page.properties}


def _one_line(parts: list[str]) -> str:
    return " ".join("".join(parts).split())


def _tidy(text: str) -> str:
    """Take out spaces at the ends of lines, and blank lines beyond one."""
    lines = [line.strip(" ") if not line[:2].isspace() else line for line in text.split("\n")]
    stripped = "\n".join(line.rstrip(" \t") for line in lines)
    return re.sub(r"\n{3,}", "\n\n", stripped).strip("\n")
