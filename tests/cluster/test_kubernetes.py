"""The manifests of cluster/kuberay, rendered by kubectl and held against KubeRay's own schemas."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from support.crds import Definition

OVERLAYS = ["volume", "s3"]
RELEASES = ["v1.6.2", "v1.7.0"]
TOKEN = {"name": "posetune-ray", "key": "auth_token"}
"""The Secret that README.md makes."""

Manifest = dict[str, Any]


@functools.cache
def definition(kind: str, release: str) -> Definition:
    return Definition(Path(__file__).parent / "crds" / f"{kind.lower()}s-{release}.yaml.gz")


@pytest.fixture
def kuberay(repository: Path) -> Path:
    return repository / "cluster" / "kuberay"


@pytest.fixture
def rendered(
    required: Callable[[str, bool, str], None], kuberay: Path
) -> Callable[[str], list[Manifest]]:
    """Render an overlay, as `kubectl apply --kustomize` does before it sends anything."""
    required("kubectl", shutil.which("kubectl") is not None, "install kubectl")

    def render(overlay: str, root: Path = kuberay) -> list[Manifest]:
        done = subprocess.run(
            ["kubectl", "kustomize", str(root / overlay)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return render


def of_kind(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def templates(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """The pod templates of a manifest, with what each is for."""
    spec = manifest["spec"]
    if manifest["kind"] == "Job":
        yield "check", spec["template"]["spec"]
        return
    if "submitterPodTemplate" in spec:
        yield "submitter", spec["submitterPodTemplate"]["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    yield "head", cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster["workerGroupSpecs"]:
        yield "worker", group["template"]["spec"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_valid_under_the_releases_that_readme_names(
    rendered: Callable[[str], list[Manifest]], kuberay: Path, overlay: str, release: str
) -> None:
    job = of_kind(rendered(overlay), "RayJob")
    assert definition("RayJob", release).faults(job) == []
    misspelt = copy.deepcopy(job)
    misspelt["spec"]["rayClusterSpec"]["authOption"] = {}
    assert definition("RayJob", release).faults(misspelt), "the schema refuses what it has not"
    assert release.removeprefix("v") in (kuberay / "README.md").read_text()


@pytest.mark.parametrize("release", RELEASES)
def test_the_standing_cluster_is_valid(kuberay: Path, release: str) -> None:
    manifest = yaml.safe_load((kuberay / "raycluster.yaml").read_text())
    assert definition("RayCluster", release).faults(manifest) == []


def tokens(cluster_name: str, manifest: Manifest) -> dict[str, Manifest]:
    """Where each container's token comes from, by the rules of KubeRay 1.7.0.

    `SetContainerTokenAuthEnvVars` (controllers/ray/common/pod.go) gives the variable RAY_AUTH_TOKEN
    to the first container of head and workers, to the autoscaler (pod.go, `DefaultHeadPodTemplate`)
    and to the submitter (rayjob_controller.go, `configureSubmitterContainer`), if `authOptions`
    asks for it (`IsAuthEnabled`) and the container has none of its own. The Secret is that of
    `secretName`, else one named after the cluster; the key is always `auth_token`.
    """
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    options = spec.get("authOptions", {})
    if options.get("mode") != "token":
        return {}
    given = {"name": options.get("secretName") or cluster_name, "key": "auth_token"}
    found = {}
    for what, pod in templates(manifest):
        own = {v["name"]: v for v in pod["containers"][0].get("env", [])}
        found[what] = own.get("RAY_AUTH_TOKEN", given)
    if spec.get("enableInTreeAutoscaling"):
        found["autoscaler"] = given
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_token_reaches_submitter_autoscaler_and_all_nodes(
    rendered: Callable[[str], list[Manifest]], kuberay: Path, overlay: str
) -> None:
    found = tokens("posetune-sweep-abcde", of_kind(rendered(overlay), "RayJob"))
    assert found == dict.fromkeys(["submitter", "head", "worker", "autoscaler"], TOKEN)
    readme = (kuberay / "README.md").read_text()
    assert f"secret generic {TOKEN['name']} --from-file={TOKEN['key']}=/dev/stdin" in readme


def test_the_token_reaches_all_of_the_standing_cluster(kuberay: Path) -> None:
    manifest = yaml.safe_load((kuberay / "raycluster.yaml").read_text())
    found = tokens("posetune", manifest)
    assert found == dict.fromkeys(["head", "worker", "autoscaler"], TOKEN)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_pass_the_restricted_standard_of_their_namespace(
    rendered: Callable[[str], list[Manifest]], overlay: str
) -> None:
    manifests = rendered(overlay)
    labels = of_kind(manifests, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for kind in ("Job", "RayJob"):
        for _, pod in templates(of_kind(manifests, kind)):
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            mounted = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", [])}
            assert mounted == {volume["name"] for volume in pod.get("volumes", [])}
            for container in pod["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert container["image"] == "REGISTRY/posetune:0.1.0"
    claims = [m for m in manifests if m["kind"] == "PersistentVolumeClaim"]
    assert [c["spec"]["accessModes"] for c in claims] == [["ReadWriteMany"]] * len(claims)
    assert bool(claims) == (overlay == "volume")
    assert {m["metadata"].get("namespace") for m in manifests} == {None, "posetune"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_gpus_are_asked_for_only_after_a_check_of_the_same_file_and_store_on_a_cpu(
    rendered: Callable[[str], list[Manifest]], kuberay: Path, overlay: str
) -> None:
    manifests = rendered(overlay)
    check, job = of_kind(manifests, "Job"), of_kind(manifests, "RayJob")
    steps = {m["kind"]: m["metadata"].get("labels", {}).get("posetune/step") for m in manifests}
    assert {kind for kind, step in steps.items() if step} == {"Job", "RayJob"}
    (pod,) = [pod for _, pod in templates(check)]
    assert not [c for c in pod["containers"] if "nvidia.com/gpu" in c["resources"]["requests"]]
    assert check["spec"]["backoffLimit"] == 0
    assert check["spec"]["activeDeadlineSeconds"] > 0

    words = pod["containers"][0]["command"]
    entrypoint = job["spec"]["entrypoint"].split()
    assert words[:3] == ["posetune", "check", entrypoint[2]]
    assert words[3].removeprefix("--store=") == entrypoint[entrypoint.index("--store") + 1]
    assert all(
        group["replicas"] == 0 for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    )
    assert job["spec"]["preRunningDeadlineSeconds"] < job["spec"]["activeDeadlineSeconds"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_sweep_in_a_queue_of_kueue_asks_for_all_its_workers_at_once(
    rendered: Callable[..., list[Manifest]],
    kuberay: Path,
    tmp_path: Path,
    overlay: str,
    release: str,
) -> None:
    shutil.copytree(kuberay, tmp_path / "kuberay")
    file = tmp_path / "kuberay" / overlay / "kustomization.yaml"
    file.write_text(f"{file.read_text()}components: [../kueue]\n")  # as its header says
    assert "components: [../kueue]" in (kuberay / "kueue" / "kustomization.yaml").read_text()

    job = of_kind(rendered(overlay, tmp_path / "kuberay"), "RayJob")

    assert definition("RayJob", release).faults(job) == []
    queues = list(yaml.safe_load_all((kuberay / "kueue" / "queues.yaml").read_text()))
    named = {(m["kind"], m["metadata"]["name"]) for m in queues}
    labels = job["metadata"]["labels"]
    assert ("LocalQueue", labels["kueue.x-k8s.io/queue-name"]) in named
    assert ("WorkloadPriorityClass", labels["kueue.x-k8s.io/priority-class"]) in named
    cluster = job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] > 0
    assert job["spec"]["shutdownAfterJobFinishes"] is True


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_two_sweeps_share_nothing_that_bears_a_name(
    rendered: Callable[[str], list[Manifest]], kuberay: Path, overlay: str, release: str
) -> None:
    for name in ("full", "a" * 41):
        done = subprocess.run(
            ["bash", str(kuberay / "render.sh"), overlay, name], capture_output=True, text=True
        )
        manifests = list(yaml.safe_load_all(done.stdout))
        check, job = of_kind(manifests, "Job"), of_kind(manifests, "RayJob")

        assert definition("RayJob", release).faults(job) == []
        assert check["metadata"]["name"] == f"check-{name}"
        assert job["metadata"]["name"] == f"sweep-{name}"
        assert len(job["metadata"]["name"]) <= 47, "the longest that KubeRay takes"
        words = job["spec"]["entrypoint"].split()
        assert words[words.index("--name") + 1] == name
        files = {
            volume["configMap"]["name"]
            for manifest in (check, job)
            for _, pod in templates(manifest)
            for volume in pod.get("volumes", [])
            if "configMap" in volume
        }
        assert files == {f"sweep-{name}"}
        assert of_kind(manifests, "NetworkPolicy") == of_kind(rendered(overlay), "NetworkPolicy")


class ApiServer(ThreadingHTTPServer):
    """Answers what kubectl asks of a cluster that has one RayJob, and nothing else."""

    def __init__(self, status: str) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.job: Manifest | None = {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {"name": "sweep-full", "namespace": "posetune", "uid": "1"},
            "status": {"jobDeploymentStatus": status} if status else {},
        }
        self.written: list[tuple[str, str]] = []
        """Each request that was more than a question: its method and its path."""


class Answer(BaseHTTPRequestHandler):
    """Answers one request."""

    server: ApiServer
    group: ClassVar[Manifest] = {"groupVersion": "ray.io/v1", "version": "v1"}
    answers: ClassVar[dict[str, Manifest]] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [{"name": "ray.io", "versions": [group], "preferredVersion": group}],
        },
        "/apis/ray.io/v1": {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": "ray.io/v1",
            "resources": [
                {
                    "name": "rayjobs",
                    "singularName": "rayjob",
                    "namespaced": True,
                    "kind": "RayJob",
                    "verbs": ["get", "list", "watch", "delete"],
                }
            ],
        },
    }
    place = "/apis/ray.io/v1/namespaces/posetune/rayjobs"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        there = [self.server.job] if self.server.job else []
        if path == f"{self.place}/sweep-full" and there:
            self._send(200, there[0])
        elif path == self.place:
            meta = {"resourceVersion": "1"}
            self._send(200, {"kind": "RayJobList", "apiVersion": "ray.io/v1", "metadata": meta})
        elif path in self.answers:
            self._send(200, self.answers[path])
        else:
            self._send(404, {"kind": "Status", "status": "Failure", "reason": "NotFound"})

    def _write(self) -> None:
        self.server.written.append((self.command, self.path.partition("?")[0]))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "DELETE":
            self.server.job = None
            self._send(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        else:
            self._send(403, {"kind": "Status", "apiVersion": "v1", "status": "Failure"})

    do_DELETE = do_POST = do_PATCH = do_PUT = _write

    def _send(self, code: int, answer: Manifest) -> None:
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def run(
    required: Callable[[str, bool, str], None], kuberay: Path, tmp_path: Path
) -> Callable[..., tuple[subprocess.CompletedProcess[str], list[tuple[str, str]]]]:
    """Run the script against a cluster in which the RayJob sweep-full has a status.

    The server refuses whatever else is written, so the script ends there.
    """
    required("kubectl", shutil.which("kubectl") is not None, "install kubectl")

    def start(status: str, *words: str) -> Any:
        with ApiServer(status) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            file = tmp_path / "config"
            cluster = {"server": f"http://127.0.0.1:{server.server_port}"}
            config = {
                "clusters": [{"name": "c", "cluster": cluster}],
                "contexts": [{"name": "c", "context": {"cluster": "c"}}],
                "current-context": "c",
            }
            file.write_text(json.dumps(config))
            done = subprocess.run(
                ["bash", str(kuberay / "run.sh"), *words],
                capture_output=True,
                text=True,
                timeout=60,
                env={**os.environ, "KUBECONFIG": str(file), "HOME": str(tmp_path)},
            )
            server.shutdown()
            return done, server.written

    return start


@pytest.mark.parametrize("status", ["", "Initializing", "Running", "Suspended", "Retrying"])
def test_a_sweep_whose_rayjob_has_not_ended_is_refused_before_anything_is_written(
    run: Callable[..., Any], repository: Path, status: str
) -> None:
    done, written = run(status, "volume", str(repository / "README.md"), "full")

    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: RayJob sweep-full is there and has not ended ({status})")
    assert done.stderr.count("\n") == 1
    assert written == []


@pytest.mark.parametrize("status", ["Complete", "Failed", "ValidationFailed"])
def test_a_rayjob_that_has_ended_makes_place_for_the_next(
    run: Callable[..., Any], repository: Path, status: str
) -> None:
    _, written = run(status, "volume", str(repository / "README.md"), "full")

    assert written[0] == ("DELETE", f"{Answer.place}/sweep-full")


def test_the_rayjob_of_another_sweep_stays(run: Callable[..., Any], repository: Path) -> None:
    done, written = run("Running", "volume", str(repository / "README.md"), "other")

    assert "sweep-full" not in done.stderr
    assert "DELETE" not in dict(written)


@pytest.mark.parametrize("name", ["Full", "a_b", "-a", "a-", "a" * 42, ""])
def test_names_that_kubernetes_does_not_take_are_refused(
    run: Callable[..., Any], repository: Path, name: str
) -> None:
    done, written = run("Running", "volume", str(repository / "README.md"), name)

    assert (done.returncode, done.stderr.count("\n"), written) == (2, 1, [])
    assert f"error: NAME {name}: " in done.stderr


@pytest.mark.parametrize("script", ["run.sh", "render.sh"])
def test_the_scripts_are_valid_shell(kuberay: Path, script: str) -> None:
    subprocess.run(["bash", "-n", str(kuberay / script)], check=True)
