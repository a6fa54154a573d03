"""The Kubernetes manifests: known fields of the right types, agreed versions, no secret.

No pod runs as root.
"""

from __future__ import annotations

import re
import tomllib

import kubernetes_validate
import pytest
import yaml

from cfray.job.file import read_job
from tests.cluster.schemas import MANIFESTS, ROOT, documents, faults, misspelt

#: A version that KubeRay 1.6 supports.
KUBERNETES = "1.33"
ALL = [
    pytest.param(document, id=f"{path.stem}-{document['kind']}-{document['metadata']['name']}")
    for path in MANIFESTS
    for document in documents(path)
]
CLUSTERS = [item for item in ALL if item.values[0]["kind"] in ("RayJob", "RayCluster")]
CORE = [item for item in ALL if item not in CLUSTERS]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def cluster_of(document):
    return document["spec"].get("rayClusterSpec", document["spec"])


def pods(document):
    """List the pod templates of a RayJob or a RayCluster."""
    cluster = cluster_of(document)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    submitter = document["spec"].get("submitterPodTemplate")
    return [group["template"] for group in groups] + ([submitter] if submitter else [])


def containers(document):
    return [container for pod in pods(document) for container in pod["spec"]["containers"]]


def core_faults(document):
    if missing := {"apiVersion", "kind"} - document.keys():
        return [f"{sorted(missing)} missing"]
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


# -- fields ----------------------------------------------------------------------------------------


@pytest.mark.server("kuberay")
@pytest.mark.parametrize("document", CLUSTERS)
def test_kuberays_schema_knows_every_field(document, ray_schemas):
    assert not faults(document, ray_schemas[document["kind"]])


@pytest.mark.server("kuberay")
@pytest.mark.parametrize("document", CLUSTERS)
def test_each_misspelt_field_is_caught(document, ray_schemas):
    schema = ray_schemas[document["kind"]]
    changed = list(misspelt(document))
    assert len(changed) > 100
    assert not [path for path, wrong in changed if not faults(wrong, schema)]


@pytest.mark.server("kuberay")
def test_a_value_of_the_wrong_type_is_named(ray_schemas):
    (document,) = documents(ROOT / "cluster/kuberay/rayjob.yaml")
    document["spec"]["backoffLimit"] = "two"
    (fault,) = faults(document, ray_schemas["RayJob"])
    assert fault.startswith("spec/backoffLimit: 'two' is not of type 'integer'")


@pytest.mark.parametrize("document", CORE)
def test_kubernetes_schema_knows_every_field(document):
    assert not core_faults(document)


@pytest.mark.parametrize("document", CORE)
def test_each_misspelt_field_of_a_core_object_is_caught(document):
    assert not [path for path, wrong in misspelt(document) if not core_faults(wrong)]


# -- what the operator checks, and a schema cannot -------------------------------------------------


@pytest.mark.parametrize("document", CLUSTERS)
def test_groups_can_grow_and_one_has_gpus(document):
    cluster = cluster_of(document)
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert groups.keys() == {"cpu", "gpu"}
    for name, group in groups.items():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "gpu")
    # the autoscaler of this version refuses any other
    assert all("restartPolicy" not in pod["spec"] for pod in pods(document)[:3])


@pytest.mark.parametrize("document", CLUSTERS)
def test_versions_are_those_of_the_tests(document):
    constraints = (ROOT / "constraints.txt").read_text()
    assert f"\nray=={cluster_of(document)['rayVersion']}\n" in constraints
    for container in containers(document):
        assert re.fullmatch(
            rf"REGISTRY/cfray:{re.escape(PROJECT['version'])}-[cg]pu", container["image"]
        )


# -- safety ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", CLUSTERS)
def test_pods_have_no_privileges_and_a_bound_of_memory(document):
    for pod in pods(document):
        assert pod["metadata"]["labels"] == {"app.kubernetes.io/name": "cfray"}
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert not [key for key in pod["spec"] if key.startswith("host")]
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert cluster_of(document)["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("document", CLUSTERS)
def test_credentials_are_references(document):
    # the job server's API and the logs show what a runtime_env holds
    assert "runtimeEnvYAML" not in document["spec"]
    variables = [item for container in containers(document) for item in container.get("env", [])]
    for variable in variables:
        if re.search("KEY|TOKEN|SECRET|PASSWORD", variable["name"]):
            assert variable["valueFrom"].keys() == {"secretKeyRef"}
    assert variables


def test_no_manifest_is_a_secret():
    assert "Secret" not in {item.values[0]["kind"] for item in ALL}


# -- the job ---------------------------------------------------------------------------------------


def test_the_rayjob_runs_a_file_of_the_image_with_a_job_file_that_it_mounts(tmp_path, monkeypatch):
    (rayjob,) = documents(ROOT / "cluster/kuberay/rayjob.yaml")
    (job_file,) = documents(ROOT / "cluster/kuberay/job-file.yaml")
    python, script, argument = rayjob["spec"]["entrypoint"].split()
    assert python == "python"
    assert (ROOT / script.removeprefix("/opt/cfray/")).exists()
    head = pods(rayjob)[0]["spec"]
    (mount,), (volume,) = head["containers"][0]["volumeMounts"], head["volumes"]
    assert volume["configMap"]["name"] == job_file["metadata"]["name"]
    assert argument.removeprefix(mount["mountPath"] + "/") in job_file["data"]
    path = tmp_path / "job.yaml"
    path.write_text(job_file["data"]["job.yaml"])
    assert read_job(path).name == "articles"
    named = yaml.safe_load(path.read_text())["source"]["api_key"]["env"]
    for pod in pods(rayjob)[:3]:  # the driver and every worker read the source
        assert named in {item["name"] for item in pod["spec"]["containers"][0]["env"]}


def test_every_account_that_a_pod_names_is_made():
    made = {
        document["metadata"]["name"]
        for document in documents(ROOT / "cluster/kuberay/access.yaml")
        if document["kind"] == "ServiceAccount"
    }
    for item in CLUSTERS:
        assert {pod["spec"]["serviceAccountName"] for pod in pods(item.values[0])} <= made
