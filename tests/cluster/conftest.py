"""What the tests of the cluster's files share."""

from __future__ import annotations

import pytest

from tests.cluster.schemas import schema_of
from tests.testbeds import kuberay, lineup


@pytest.fixture(scope="session")
def ray_schemas():
    """Give the schemas of KubeRay's kinds, unknown fields refused."""
    with lineup.taking_part("kuberay", kuberay.definitions()) as definitions:
        yield {kind: schema_of(definition) for kind, definition in definitions.items()}
