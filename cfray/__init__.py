"""cfray moves a whole corpus out of the store it lives in and into one proven Lance dataset.

On Ray.

``pipeline.py`` is the program from top to bottom; this module only names what
others may rely on, and imports no SDK, no torch, no lance and no ray.
"""

__all__ = ["CfrayError", "__version__"]

from importlib.metadata import PackageNotFoundError, version

from cfray.errors import CfrayError

try:
    __version__ = version("cfray")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"
