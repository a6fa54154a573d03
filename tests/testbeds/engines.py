"""Elasticsearch and OpenSearch nodes: the vendors' own builds for integration tests, from Maven.

The zips hold few modules.  Elasticsearch's lacks the one that answers ``GET /``: a plugin of ours,
built here, answers from the node's own state.  OpenSearch's k-NN plugin comes without its native
library, so ``opensearch.py`` turns the native graph off.  Both engines refuse to run as root: then
they get a user namespace of their own.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.testbeds import maven
from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running

MODULE = Path(__file__).parent / "engines_module"
HEAP = "512m"
#: C1 alone and no touching of the heap: a start takes half the time, and tests need no speed.
QUICK_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:-AlwaysPreTouch", "-Xshare:auto")


@dataclass(frozen=True, slots=True)
class Engine:
    """A version of one of the engines.

    Attributes:
        name: ``elasticsearch`` or ``opensearch``.
        version: as the vendor numbers it.
        java: the oldest and the newest JDK that runs it.
    """

    name: str
    version: str
    java: tuple[int, int]

    @property
    def profile(self) -> str:
        """Name the profile of the pom."""
        return f"{self.name}-{self.version.partition('.')[0]}"


@contextmanager
def start(
    engine: Engine, folder: Path, settings: Mapping[str, str], *, quick: bool = True
) -> Iterator[Server]:
    """Start a node on free ports, fetching it first if it is not in the cache.

    Args:
        engine: what to start.
        folder: of its own, for its data and its configuration.
        settings: of the node, beside those that keep it to this machine.
        quick: start sooner, and work slower under load.
    """
    java = maven.require_java(*engine.java)
    home = maven.unpacked(
        f"{engine.name}-{engine.version}",
        MODULE / "pom.xml",
        engine.profile,
        lambda artifacts, server: _unpack(engine, java, artifacts, server),
    )
    ports = free_ports(2)
    cluster = f"cfray-{secrets.token_hex(8)}"
    folder = folder.absolute()
    _configure(home, folder, {**_node_settings(cluster, ports, folder), **settings}, engine.name)
    options = [f"-Xms{'64m' if quick else HEAP}", f"-Xmx{HEAP}", *(QUICK_JAVA if quick else ())]
    if engine.name == "elasticsearch":
        argv = [str(home / "bin/elasticsearch")]
        environment = {
            "ES_JAVA_HOME": str(java),
            "ES_PATH_CONF": str(folder / "conf"),
            "ES_TMPDIR": str(folder / "tmp"),
            "ES_JAVA_OPTS": " ".join(options),
        }
    else:
        argv, environment = _opensearch_command(home, java, folder, options), {}
    launch = Launch(
        engine.name,
        [*_no_root(), *argv],
        ports,
        lambda server: _answers(server, cluster),
        settings=environment,
        slowest=240,
    )
    with running(launch, folder) as server:
        yield server


def send(server: Server, method: str, path: str, body: object = None) -> object:
    """Send a request without any client, and give the parsed answer."""
    request = urllib.request.Request(
        f"{server.endpoint}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        parsed: object = json.load(answer)
        return parsed


def _answers(server: Server, cluster: str) -> bool:
    """Tell whether the node that was started here answers, and has a master."""
    try:
        health = send(server, "GET", "/_cluster/health?wait_for_status=yellow&timeout=1s")
    except OSError:
        return False
    return isinstance(health, dict) and health.get("cluster_name") == cluster


def _no_root() -> list[str]:
    if os.geteuid():
        return []
    unshare = shutil.which("unshare")
    if not unshare:
        raise Unavailable("it refuses to run as root, and there is no program unshare to avoid it")
    return [unshare, "--user", "--map-user=1000", "--map-group=1000"]


def _node_settings(cluster: str, ports: list[int], folder: Path) -> dict[str, str]:
    return {
        "cluster.name": cluster,
        "node.name": "node1",
        "discovery.type": "single-node",
        "network.host": "127.0.0.1",
        "http.port": str(ports[0]),
        "transport.port": str(ports[1]),
        "path.data": str(folder / "data"),
        "path.logs": str(folder / "logs"),
        "cluster.routing.allocation.disk.threshold_enabled": "false",
        # points in time that have expired are let go within a second, not within a minute
        "search.keep_alive_interval": "1s",
    }


def _configure(home: Path, folder: Path, settings: Mapping[str, str], name: str) -> None:
    configuration = folder / "conf"
    for needed in ("conf/jvm.options.d", "data", "logs", "tmp"):
        (folder / needed).mkdir(parents=True, exist_ok=True)
    for file in (home / "config").iterdir():
        if file.is_file():
            shutil.copy(file, configuration / file.name)
    lines = [f"{key}: {value}\n" for key, value in settings.items()]
    (configuration / f"{name}.yml").write_text("".join(lines))


def _opensearch_command(home: Path, java: Path, folder: Path, options: list[str]) -> list[str]:
    """Give the command of the server's own JVM; the script would start three more for nothing."""
    agent = home / "agent/opensearch-agent.jar"
    if agent.exists():
        security = [f"-javaagent:{agent}", "--add-modules=jdk.incubator.vector"]
        security.append("--add-opens=java.base/java.nio=ALL-UNNAMED")
    else:
        security = ["-Djava.security.manager=allow"]
    return [
        *(str(java / "bin/java"), "-XX:+UseSerialGC", "-Xss1m", *options, *security),
        *("-Djava.awt.headless=true", "-Dfile.encoding=UTF-8", "-Djna.nosys=true"),
        *("-Dio.netty.noUnsafe=true", "-Dio.netty.noKeySetOptimization=true"),
        *("-Dio.netty.recycler.maxCapacityPerThread=0", "-XX:MaxDirectMemorySize=256m"),
        *("-Dlog4j.shutdownHookEnabled=false", "-Dlog4j2.disable.jmx=true"),
        *("-Djava.locale.providers=SPI,CLDR", f"-Djava.io.tmpdir={folder / 'tmp'}"),
        *(f"-Dopensearch.path.home={home}", f"-Dopensearch.path.conf={folder / 'conf'}"),
        *("-Dopensearch.distribution.type=zip", "-Dopensearch.bundled_jdk=false"),
        *("-cp", str(home / "lib/*"), "org.opensearch.bootstrap.OpenSearch"),
    ]


def _unpack(engine: Engine, java: Path, artifacts: Path, server: Path) -> None:
    """Make a distribution that starts out of the artifacts."""
    name = f"{engine.name}-{engine.version}"
    with zipfile.ZipFile(artifacts / f"{name}.zip") as archive:
        for member in archive.infolist():
            # 75 MB of locations, and a module that refuses to start without them
            if "/modules/ingest-geoip/" in member.filename:
                continue
            path = Path(archive.extract(member, server))
            if path.is_file() and (mode := member.external_attr >> 16 & 0o777):
                path.chmod(mode)
    for child in (server / name).iterdir():
        child.rename(server / child.name)
    (server / name).rmdir()
    for folder in ("plugins", "logs"):
        (server / folder).mkdir(exist_ok=True)
    if engine.name == "elasticsearch":
        _build_root_plugin(engine, java, server)
        return
    if not (server / "modules/lang-painless").exists():
        _put_painless_together(engine, artifacts, server / "modules/lang-painless")
    with zipfile.ZipFile(next(artifacts.glob("opensearch-knn-*.zip"))) as archive:
        archive.extractall(server / "plugins/opensearch-knn")


def _put_painless_together(engine: Engine, artifacts: Path, module: Path) -> None:
    module.mkdir()
    for jar in artifacts.glob("*.jar"):
        shutil.copy(jar, module)
    (module / "plugin-descriptor.properties").write_text(
        f"name=lang-painless\ndescription=Painless\nversion={engine.version}\n"
        f"opensearch.version={engine.version}\njava.version=11\n"
        "classname=org.opensearch.painless.PainlessPlugin\ncustom.foldername=\n"
        "extended.plugins=\nhas.native.controller=false\n"
    )
    (module / "plugin-security.policy").write_text(
        'grant {\n  permission java.lang.RuntimePermission "createClassLoader";\n'
        '  permission java.lang.RuntimePermission "getClassLoader";\n};\n'
    )


def _build_root_plugin(engine: Engine, java: Path, server: Path) -> None:
    """Build the plugin that answers ``GET /``, against the distribution's own libraries."""
    plugin = server / "plugins/testroot"
    classes = server / "testroot-classes"
    plugin.mkdir()
    major = re.match(r"\d+", engine.version)
    assert major
    source = MODULE / f"root{major[0]}/testroot/RootPlugin.java"
    release = str(engine.java[0])
    commands = [
        [
            *(str(java / "bin/javac"), "--release", release, "-proc:none"),
            *("-cp", str(server / "lib/*"), "-d", str(classes), str(source)),
        ],
        [
            *(str(java / "bin/jar"), "--create", "--file", str(plugin / "testroot.jar")),
            *("-C", str(classes), "."),
        ],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise Unavailable(f"its plugin for GET / cannot be built: {done.stderr[-300:]}")
    shutil.rmtree(classes)
    (plugin / "plugin-descriptor.properties").write_text(
        "name=testroot\ndescription=Answers GET / in the test distribution\nversion=1\n"
        f"elasticsearch.version={engine.version}\njava.version={release}\n"
        "classname=testroot.RootPlugin\n"
    )
