"""The extractor's process: documents come in by one pipe, texts go out by another.

It is started with ``python -m``, imports the extractor when the first document needs it, and ends
when its input ends.  A limit of memory and an alarm clock hold for each document even if the
process that started this one is gone.  Nothing here imports the rest of cfray.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
from typing import Any, BinaryIO

#: Properties that the extractor gives, as they are called in a record.
_PROPERTIES = {
    "title": "title",
    "subject": "subject",
    "authors": "authors",
    "author": "author",
    "keywords": "keywords",
    "language": "language",
    "created_at": "created_at",
    "modified_at": "modified_at",
    "created_by": "created_by",
    "page_count": "pages",
}


def main() -> None:
    """Answer documents until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _answer(answers, {"ready": True})
    requests = sys.stdin.buffer
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size"])
        # later than the process that waits, unless that is gone
        signal.alarm(math.ceil(request["seconds"]) + 1)
        _answer(answers, _extract(data, request))
        signal.alarm(0)


def _answer(answers: BinaryIO, answer: dict[str, object]) -> None:
    data = json.dumps(answer).encode()
    answers.write(b"%d\n" % len(data) + data)
    answers.flush()


def _extract(data: bytes, request: dict[str, Any]) -> dict[str, object]:
    """Give ``text``, ``title`` and ``properties``; or ``problem``; or what is ``missing``."""
    try:
        if request["mime"] == "text/html":
            from cfray.sources.filesystem.markup import read_html

            _limit_memory(request["memory"])
            return read_html(data.decode())
        _limit_memory(None)
        import kreuzberg

        _limit_memory(request["memory"])
        return _extract_document(kreuzberg, data, request["mime"])
    except MemoryError:
        return {"problem": "it takes more memory than source.extract_memory allows", "worn": True}
    except ImportError as error:
        return {"missing": str(error)}
    except BaseException as error:  # noqa: BLE001  # a panic of Rust is no Exception
        return {"problem": f"{type(error).__name__}: {error}"[:500]}


def _extract_document(kreuzberg: Any, data: bytes, mime: str) -> dict[str, object]:
    config = kreuzberg.ExtractionConfig(
        use_cache=False, enable_quality_processing=False, disable_ocr=True
    )
    result = kreuzberg.extract_bytes_sync(data, mime, config)
    metadata = dict(result.metadata)
    properties = {
        name: metadata[key]
        for key, name in _PROPERTIES.items()
        if metadata.get(key) not in (None, "", [])
    }
    title = str(properties.pop("title", "")).strip()
    return {"text": result.content, "title": title, "properties": properties}


def _limit_memory(size: int | None) -> None:
    """Allow so many bytes beside what the process has now; None: as many as there are."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        with open("/proc/self/statm", encoding="ascii") as status:
            present = int(status.read().split()[0]) * resource.getpagesize()
        soft = hard if size is None else present + size
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    except (OSError, ValueError):
        return  # no Linux, or a lower limit that holds anyway: the limit of time still holds


if __name__ == "__main__":
    main()
