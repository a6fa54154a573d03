"""The forms in which a value may hold a vector, by the words of the job file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

#: Forms of a vector, as the key ``as`` of a job file names them (``job.mapping.VectorRule``).
VectorForm = Literal[
    "auto", "json", "numpy", "separated", "floats", "doubles", "halves", "base64", "npy"
]
#: The forms that are bytes, or texts that stand for bytes.
BYTE_FORMS = ("floats", "doubles", "halves", "base64", "npy")
#: Numbers of one vector; None where there is none: an empty text, an empty list or a null.
Numbers: TypeAlias = Sequence[float] | npt.NDArray[np.generic] | None


class UnreadableVectorError(ValueError):
    """A value that is no vector in the form that it should have; its text is the reason."""
