"""The keys that a job file may hold, read from the models, so that no section is forgotten.

Pydantic says where a fault is as a path that mixes the file's keys with pydantic's names for the
branches of a union.  ``locate`` tells the two apart: a step that leads somewhere in the models is
a key of the file, any other step is a branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from cfray.job.spec import KINDS, JobSpec
from cfray.runtime.credentials import Secret


@dataclass(frozen=True, slots=True)
class KeyLocation:
    """Where in a job file a fault is.

    Attributes:
        keys: the file's keys that lead there; numbers stand for items of lists.  They end where a
            credential should be named, for what stands there may be the credential itself.
        models: the models of what may stand there; empty where only plain values may.
        is_secret: whether a credential should be named there.
        branch: the first branch of a union on the way; None where there is none.
        branch_depth: how many keys lead to that union.
    """

    keys: tuple[str, ...]
    models: tuple[type[BaseModel], ...]
    is_secret: bool
    branch: str | None
    branch_depth: int


def locate(steps: Sequence[int | str]) -> KeyLocation:
    """Follow a path of pydantic's through the models of the job file."""
    types: list[Any] = [JobSpec]
    keys: list[str] = []
    branch: tuple[str, int] | None = None
    for step in steps:
        inner = [kind for alternative in types for kind in _enter(alternative, step)]
        if inner:
            keys.append(str(step))
            types = [kind for annotation in inner for kind in alternatives(annotation)]
            if Secret in types:
                break
        elif str(step) in KINDS and KINDS[str(step)] in types:
            types = [KINDS[str(step)]]
        elif branch is None:
            branch = (str(step), len(keys))
    models = tuple(kind for kind in types if _is_model(kind))
    name, depth = branch or (None, 0)
    return KeyLocation(tuple(keys), models, Secret in types, name, depth)


def known_keys(models: Sequence[type[BaseModel]]) -> list[str]:
    """List the keys that these models know, sorted."""
    return sorted(
        {field.alias or name for model in models for name, field in model.model_fields.items()}
    )


def secret_keys(models: Sequence[type[BaseModel]]) -> list[str]:
    """List the keys of these models under which a credential is named."""
    return sorted(
        {
            name
            for model in models
            for name, field in model.model_fields.items()
            if Secret in alternatives(field.annotation)
        }
    )


def alternatives(annotation: Any) -> Iterator[Any]:
    """List the types of a union; any other type alone."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from alternatives(member)
    else:
        yield annotation


def _enter(kind: Any, step: int | str) -> list[Any]:
    """Give the type of what stands under a key or a number, in a list; empty where nothing can."""
    if _is_model(kind):
        return [
            field.annotation
            for name, field in kind.model_fields.items()
            if step == (field.alias or name)
        ]
    if get_origin(kind) is list and isinstance(step, int):
        return [get_args(kind)[0]]
    if get_origin(kind) is dict and isinstance(step, str):
        return [get_args(kind)[1]]
    return []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
