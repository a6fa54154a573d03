"""Import a vendor's client where it is needed, and name the extra where it is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from cfray.errors import SourceError


def import_sdk(module: str, extra: str) -> ModuleType:
    """Import a store's client.

    Raises:
        SourceError: it is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".", 1)[0] != module.split(".", 1)[0]:
            raise
        raise SourceError(
            f"the client of {extra} is not installed",
            f"pip install 'cfray[{extra}]' on the driver and on every worker",
        ) from None
