"""Where the pieces of an embedding lie until its swap."""

from dataclasses import replace

from cfray.embedders.base import Identity
from cfray.embedders.recipe import Recipe
from cfray.embedding.pieces import VectorTask
from tests.job.test_agreement import job_from_python


def test_pieces_of_a_model_whose_files_changed_are_not_taken_for_the_new_models(tmp_path):
    embedding = {"policy": "regenerate", "model": "/models/m"}
    job = job_from_python(tmp_path, embedding=embedding)
    model = Identity(
        **dict.fromkeys(Identity.__dataclass_fields__, "") | {"dimension": 4, "max_tokens": 9}
    )
    task = VectorTask(job, Recipe("regenerate", 4, model), Recipe("keep", 4), 1, "embed-0001", 1)
    changed = replace(task.recipe, model=replace(model, sha256="other"))
    reduced = replace(task.recipe, reduction="p" * 64)
    folders = {replace(task, recipe=recipe).scratch for recipe in (task.recipe, changed, reduced)}
    assert len(folders) == 3
    assert replace(task, epoch=2).scratch == task.scratch
