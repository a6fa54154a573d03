"""Credentials by name: a job file says where a secret is and never holds it.

It is read at use, on the machine that uses it.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from cfray.errors import SourceError


class Secret(BaseModel):
    """Where a credential is: ``{env: NAME}`` or ``{file: PATH}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Secret:
        if (self.env is None) is (self.file is None):
            raise ValueError("write {env: NAME} or {file: PATH}")
        return self

    def reveal(self) -> str:
        """Read the credential.

        Raises:
            SourceError: it is not there.
        """
        if self.env is not None:
            if not os.environ.get(self.env):
                raise SourceError(
                    f"the environment variable {self.env}, which the job file names for a credential, is not set",
                    f"export {self.env}",
                )
            return os.environ[self.env]
        assert self.file is not None
        try:
            return Path(self.file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"cannot read the credential file {self.file}: {type(error).__name__}",
                "create it, readable for this user",
            ) from None
