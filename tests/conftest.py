"""What every test may ask for. The servers themselves are in testbeds/."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from tests.testbeds import clouds, lineup, object_stores
from tests.testbeds.shared_ray import SharedRay

# The same examples in every run: what passes here passes again. CFRAY_FUZZ=1 looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("fuzz", deadline=None)
settings.load_profile("fuzz" if os.environ.get("CFRAY_FUZZ") else "steady")
if not os.environ.get("CFRAY_FUZZ"):
    # Hypothesis also draws the constants of the modules that are loaded, and these depend on the
    # tests that ran before in the same process.
    providers.is_local_module_file = lambda path: False


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=pytest.mark.server(name)) for name in object_stores.names()],
)
def s3(request, tmp_path_factory):
    """Give each S3 store in turn."""
    with lineup.taking_part(
        request.param, object_stores.store(request.param, tmp_path_factory.mktemp(request.param))
    ) as store:
        yield store


@pytest.fixture
def no_aws(monkeypatch):
    """Clear every AWS_ variable, and keep this machine's files and metadata service out as well."""
    object_stores.clear_variables(monkeypatch)


@pytest.fixture
def s3_place(s3, no_aws, monkeypatch):
    """Give the URI of an empty place on each S3 store, with the variables that a user sets."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return s3.place()


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=pytest.mark.server(name)) for name in clouds.NAMES],
)
def cloud(request, tmp_path_factory):
    """Give the store of each other cloud in turn."""
    with lineup.taking_part(
        request.param, clouds.cloud(request.param, tmp_path_factory.mktemp(request.param))
    ) as store:
        yield store


@pytest.fixture
def cloud_place(cloud, monkeypatch):
    """Give the URI of an empty place on each other cloud, with the variables that a user sets."""
    cloud.set_variables(monkeypatch)
    return cloud.place()


#: The keys that tests give to stores, by the variable that a job file names: the shared Ray's
#: workers read with them.  A store of the user's own has its key in the environment.
STORE_KEYS = {
    "CFRAY_DYNAMODB_KEY": "cfray-tests:cfray-tests-secret",
    "CFRAY_MILVUS_KEY": "root:Milvus",
    "CFRAY_PINECONE_KEY": "any",
    "CFRAY_POSTGRES_KEY": "pa'ss\"word",
    **{name: value for name, value in os.environ.items() if re.match("CFRAY_.*_KEY$", name)},
}


@pytest.fixture(scope="session")
def _rays():
    """Hold the Ray that tests share from the first one that asks for it to the end."""
    rays: list[SharedRay] = []
    yield rays
    for ray in rays:
        ray.close()


@pytest.fixture(scope="session")
def shared_ray(_rays):
    """Give the one Ray of this pytest process; it starts now."""
    ray = SharedRay(STORE_KEYS)
    _rays.append(ray)
    return ray


@contextmanager
def running(ray):
    """Have a runner of commands for the block; what is left running is ended."""
    from tests.scenarios.runs import Runner  # imports lance, which not every test needs

    runner = Runner(ray)
    yield runner
    runner.close()


@pytest.fixture
def cfray(shared_ray):
    """Run commands on the Ray that the tests share."""
    with running(shared_ray) as runner:
        yield runner


@pytest.fixture(scope="module")
def module_cfray(shared_ray):
    """Run commands for a fixture that several tests share."""
    with running(shared_ray) as runner:
        yield runner


@pytest.fixture
def local_cfray():
    """Run commands that each start a Ray, which is killed with them."""
    with running(None) as runner:
        yield runner


@pytest.fixture(autouse=True)
def _nothing_is_left_on_the_shared_ray(request, _rays):
    """Fail a test that leaves a task or an actor behind."""
    yield
    for ray in _rays:
        if ray.touched:
            if request.node.stash.get(FAILED, False):
                ray.leave()  # a failure keeps the test's frames, and so its handles on actors
            ray.check_idle()


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def shared_bed(tmp_path_factory):
    """Give a function: the bed of a store, on the server that its group of tests shares."""

    def give(kind, **options):
        name = ", ".join([kind.kind, *options])
        return lineup.shared(
            name, lambda: kind.serving(tmp_path_factory.mktemp(kind.kind), **options)
        )

    return give


#: The servers that tests of several files use, by the word in a file's name or, in SHARING_FILES,
#: in a test's name or parameters.
SERVERS = (
    *("chroma", "milvus", "pinecone", "qdrant", "weaviate"),
    *("dynamodb", "elasticsearch", "mongodb", "opensearch", "postgres"),
    *("azurite", "endpoint", "gcs", "minio", "moto", "seaweedfs"),
)
SHARING_FILES = (
    "test_layouts.py",
    "test_stores.py",
    "test_sync_of_stores.py",
    "test_damage_of_stores.py",
    "test_vector_stores.py",
    "test_object_store.py",
    "test_object_stores.py",
    "test_clouds.py",
    "test_conditional_put.py",
    "test_identities.py",
)
#: The groups that take longest go first, so that processes which share the tests end at about the
#: same time.
LONGEST = (
    *("opensearch", "elasticsearch", "weaviate", "milvus", "postgres", "mongodb", "dynamodb"),
    *("test_regenerate.py", "test_remap.py", "test_kill.py"),
    *(
        "azurite",
        "gcs",
        "chroma",
        "qdrant",
        "test_kill_embedding.py",
        "test_embed.py",
        "test_deadly_texts.py",
    ),
)


def group_of(nodeid):
    """Name the tests that go together: those of one server, else those of one file."""
    path, _, name = nodeid.partition("::")
    file = path.rpartition("/")[2]
    words = re.findall("[a-z0-9]+", f"{file} {name}" if file in SHARING_FILES else file)
    return next((word for word in words if word in SERVERS), file)


def order_of(item):
    """Say where a test stands: long groups first, then a source's own tests before whole runs."""
    group = group_of(item.nodeid)
    rank = LONGEST.index(group) if group in LONGEST else len(LONGEST)
    return rank, group if group in SERVERS else "~", "sources" not in item.path.parts


def is_left_to_prove(item):
    """Tell whether only ``make prove`` runs a test, or a test with these parameters."""
    proof = item.get_closest_marker("prove")
    if proof is None or os.environ.get("CFRAY_PROVE") == "1":
        return False
    words = re.findall("[a-z0-9]+", item.nodeid.partition("[")[2])
    return not set(words) & set(proof.kwargs.get("elsewhere", ()))


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if is_left_to_prove(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    items.sort(key=order_of)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let processes share the groups (``--dist loadscope``), not the modules and classes."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return Groups(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Stop what a group of tests shared when its last test is over."""
    yield
    if nextitem is None or group_of(nextitem.nodeid) != group_of(item.nodeid):
        lineup.stop_shared()


def pytest_sessionfinish(session):
    """Hand what could not run to the process that reports, where several share the tests."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not_run"] = lineup.NOT_RUN


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    lineup.NOT_RUN.update(getattr(node, "workeroutput", {}).get("not_run", {}))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """Show the figures that tests recorded, and name last what could not run."""
    yield
    if lines := [
        f"  {report.nodeid.rpartition('::')[2]}: {name}: {value}"
        for report in _ended(terminalreporter)
        for name, value in report.user_properties
    ]:
        terminalreporter.section("figures:", sep="=")
        terminalreporter.write_line("\n".join(lines))
    if lines := lineup.summary():
        terminalreporter.section("not run:", sep="=", yellow=True)
        terminalreporter.write_line("\n".join(lines))


def _ended(terminalreporter):
    return [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
    ]
