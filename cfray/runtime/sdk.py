"""Import a client library where it is used, and name the extra that installs it.

No other module imports the client of a store or of an embedding server, so that
``import cfray`` loads none of them.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from cfray.errors import ConfigError


def import_sdk(module: str, extra: str) -> ModuleType:
    """Import a module of a client library that an extra of cfray installs.

    Args:
        module: dotted name, for example ``weaviate.proto.v1``.
        extra: name of the extra, for example ``weaviate`` or ``endpoint``.

    Raises:
        ConfigError: the library is not installed; the remedy names the extra.  An import
            that fails inside an installed library is raised as it is.
    """
    package = module.split(".", 1)[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".", 1)[0] != package:
            raise
        raise ConfigError(
            f"the Python package {package} is not installed",
            f"pip install 'cfray[{extra}]' on the driver and on every worker",
        ) from None
