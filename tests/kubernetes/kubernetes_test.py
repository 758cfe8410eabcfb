"""The overlays on a real cluster of one node, with the image that scripts/build-image.sh makes: probes, who may call, a rolling
restart, an eviction and a renewed certificate under load, with certificates on both sides and tokens.

`make test-kubernetes` runs it (nightly; as root). ATTEND_IMAGE names an archive of the image that is built already.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from attend_testing.certificates import Certificates
from attend_testing.doors import Door
from attend_testing.server import SOURCE_DIR

HERE = SOURCE_DIR / "tests" / "kubernetes"
OVERLAYS = SOURCE_DIR / "deploy" / "kubernetes" / "overlays"
WORK = SOURCE_DIR / "build" / "kubernetes"
SERVER_NAME = "attend.attend.svc"
HEADLESS_NAME = "attend-headless.attend.svc"  # Of clients that balance themselves.
# What deploy/kubernetes/README.md asks of the server's certificate, and the name that the image's health check calls.
SERVER_NAMES = (SERVER_NAME, HEADLESS_NAME, f"*.{HEADLESS_NAME}", "localhost")
TOKEN = "t" * 32
TIMEOUT = 240


def cluster(*arguments, text=None, check=True):
    run = subprocess.run([HERE / "cluster.sh", *arguments], input=text, capture_output=True, text=True, check=False)
    if check and run.returncode != 0:
        raise AssertionError(f"cluster.sh {' '.join(arguments)[:300]}: {run.returncode}\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
    return run


def kubectl(*arguments, **more):
    return cluster("kubectl", *arguments, **more).stdout


def apply(*documents):
    kubectl("apply", "-f", "-", text="\n---\n".join(json.dumps(document) for document in documents))


def wait_for(condition, what, seconds=TIMEOUT):
    end = time.monotonic() + seconds
    while not (got := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}\n{kubectl('get', 'pods,events', '-A', check=False)[-6000:]}")
        time.sleep(0.5)
    return got


def pods(namespace="attend", selector="app.kubernetes.io/name=attend"):
    return json.loads(kubectl("-n", namespace, "get", "pods", "-l", selector, "-o", "json"))["items"]


def is_ready(pod):
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in pod["status"].get("conditions", []))


def service_address():
    return kubectl("-n", "attend", "get", "service", "attend", "-o", "jsonpath={.spec.clusterIP}")


def build_image():
    """The archive; named as Kubernetes spells `attend:0.2.0`."""
    if archive := os.environ.get("ATTEND_IMAGE"):
        return archive
    archive = WORK / "attend.tar"
    archive.unlink(missing_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    store = f"--root {WORK}/image-store --runroot {WORK}/image-run --storage-driver vfs"
    environment = {**os.environ, "ATTEND_IMAGE_TOOL": "buildah", "BUILDAH_OPTIONS": store}
    command = [SOURCE_DIR / "scripts" / "build-image.sh", image_name(), str(archive)]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return archive


def image_name():
    text = (OVERLAYS / "single-node" / "kustomization.yaml").read_text()
    return "attend:" + text.split('newTag: "')[1].split('"')[0]


def call_pod(name, namespace, labels, environment, mounts=()):
    """A pod that asks the server whether it serves, once, as the overlay's caller does."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
              "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip
    container = {"name": "call", "image": image_name(), "imagePullPolicy": "Never", "command": ["/usr/local/bin/attend"],
                 "args": ["--timeout", "5s", "health"], "securityContext": secure,
                 "env": [{"name": key, "value": value} for key, value in environment.items()],
                 "volumeMounts": [{"name": secret, "mountPath": f"/{secret}", "readOnly": True} for secret in mounts]}  # fmt: skip
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container],
            "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
            "volumes": [{"name": secret, "secret": {"secretName": secret}} for secret in mounts]}  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}


def outcome(pod):
    """`Succeeded` or `Failed`: whether the pod's call was answered."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    kubectl("-n", namespace, "delete", "pod", name, "--ignore-not-found", "--now")
    apply(pod)

    def ended():
        phase = kubectl("-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.phase}")
        return phase if phase in ("Succeeded", "Failed") else None

    return wait_for(ended, f"the pod {namespace}/{name} ends")


class ClusterTestCase(unittest.TestCase):
    """Starts the cluster for the first test that needs it; ends it after the last."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))

    @classmethod
    def remove_everything(cls):
        kubectl("delete", "namespace", "attend", "--ignore-not-found", "--timeout=120s")


def setUpModule():
    # What the node says goes with it.
    unittest.addModuleCleanup(cluster, "down")
    unittest.addModuleCleanup(lambda: (WORK / "node.log").write_text(cluster("logs", "100", check=False).stdout))
    archive = build_image()
    cluster("up")
    cluster("load", str(archive))


class SingleNodeTest(ClusterTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        kubectl("apply", "-k", str(OVERLAYS / "single-node"))
        cls.addClassCleanup(cls.remove_everything)
        kubectl("-n", "attend", "rollout", "status", "deployment/attend", f"--timeout={TIMEOUT}s")
        cls.environment = {"ATTEND_ENDPOINTS": f"{service_address()}:50051"}

    def test_a_pod_is_ready_by_its_probes_and_was_not_restarted(self):
        (pod,) = [pod for pod in pods() if is_ready(pod)]
        self.assertEqual([status["restartCount"] for status in pod["status"]["containerStatuses"]], [0])

    def test_callers_with_the_label_in_the_namespace_are_served_and_nobody_else(self):
        label = {"attend-client": "true"}
        # Policies are enforced within a second or two of a pod's start.
        wait_for(lambda: outcome(call_pod("labelled", "attend", label, self.environment)) == "Succeeded", "a labelled caller is served")
        self.assertEqual(outcome(call_pod("unlabelled", "attend", {}, self.environment)), "Failed")
        self.assertEqual(outcome(call_pod("elsewhere", "default", label, self.environment)), "Failed")

    def test_a_pod_whose_admin_door_is_shut_never_becomes_ready(self):
        patch = [{"op": "add", "path": "/spec/template/spec/containers/0/env", "value": [{"name": "X", "value": "1"}]},
                 {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--admin-listen"},
                 {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": ""}]  # fmt: skip
        kubectl("-n", "attend", "patch", "deployment", "attend", "--type=json", "-p", json.dumps(patch))
        self.addCleanup(kubectl, "-n", "attend", "rollout", "undo", "deployment/attend")
        wait_for(lambda: len(pods()) == 2, "the new pod is there")
        time.sleep(10)
        self.assertEqual(len([pod for pod in pods() if is_ready(pod)]), 1, "the old pod serves, the new one is not ready")


class ProductionTest(ClusterTestCase):
    """With certificates on both sides, tokens, and volumes that the test makes: the cluster has no provisioner."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.certificates = Certificates(cls.folder)
        cls.certificates.authority("authority")
        cls.certificates.leaf("caller", "authority", names="URI:spiffe://example.org/attend/search")
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "attend"}})
        cls.addClassCleanup(cls.remove_everything)
        cls.make_secrets()
        cls.make_volumes()
        kubectl("apply", "-k", str(cls.overlay()))
        wait_for(lambda: sum(map(is_ready, pods())) == 3, "three pods are ready")

    @classmethod
    def new_certificate(cls):
        cls.certificates.leaf("server", "authority", names=",".join(f"DNS:{name}" for name in SERVER_NAMES))

    @classmethod
    def make_secrets(cls):
        cls.new_certificate()
        entry = {"name": "search", "roles": ["compute"], "tokens": [{"sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}]}
        (cls.folder / "principals.json").write_text(json.dumps({"principals": [entry]}))
        path = cls.certificates.path
        for name, files in {
            "attend-tls": {"tls.crt": "server.crt", "tls.key": "server.key", "ca.crt": "authority.crt"},
            "attend-principals": {"principals.json": "principals.json"},
            "caller": {"tls.crt": "caller.crt", "tls.key": "caller.key", "ca.crt": "authority.crt"},
        }.items():
            cls.put_secret(name, {key: path(file) for key, file in files.items()})

    @staticmethod
    def put_secret(name, files):
        options = [f"--from-file={key}={file}" for key, file in files.items()]
        made = kubectl("-n", "attend", "create", "secret", "generic", name, *options, "--dry-run=client", "-o", "json")
        kubectl("apply", "-f", "-", text=made)

    @classmethod
    def make_volumes(cls):
        for index in range(4):
            folder = pathlib.Path(tempfile.mkdtemp(prefix="attend-volume-", dir="/var/tmp"))
            cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
            os.chown(folder, 65532, 65532)
            name = f"data-{index}"
            apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                   "spec": {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": str(folder)},
                            "persistentVolumeReclaimPolicy": "Retain"}})  # fmt: skip
            cls.addClassCleanup(kubectl, "delete", "persistentvolume", name, "--wait=false")

    @classmethod
    def overlay(cls):
        """`production`, asking for less processor time and memory than three pods have here."""
        folder = WORK / "overlay"
        folder.mkdir(parents=True, exist_ok=True)
        path = "/spec/template/spec/containers/0/resources/requests"
        less = [{"op": "replace", "path": path, "value": {"cpu": "100m", "memory": "256Mi"}}]
        kustomization = {"resources": [os.path.relpath(OVERLAYS / "production", folder)],
                         "patches": [{"target": {"kind": "StatefulSet"}, "patch": json.dumps(less)}]}  # fmt: skip
        (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        return folder

    def door(self, host):
        return Door(50051, self.certificates.path("authority.crt"), self.certificates.path("caller"), HEADLESS_NAME, host=host)

    @contextlib.contextmanager
    def under_load(self):
        """Within the block calls go to the Service; none fails, and there are enough of them to tell."""
        stop = self.folder / "stop"
        stop.unlink(missing_ok=True)
        door = self.door(service_address()).to_json()
        command = [HERE / "cluster.sh", "exec", sys.executable, str(HERE / "caller.py"), "load", door, TOKEN, str(stop)]
        caller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(2)
            yield
            time.sleep(2)
        finally:
            stop.touch()
            told, _ = caller.communicate(timeout=60)
        told = json.loads(told)
        print(f"{self.id().rsplit('.', 1)[1]}: {told['calls']} calls, {len(told['failures'])} failures")
        self.assertEqual(told["failures"], [])
        self.assertGreater(told["calls"], 100)

    def test_callers_need_the_label_and_a_certificate(self):
        without = {"ATTEND_ENDPOINTS": f"{service_address()}:50051", "ATTEND_TLS_SERVER_NAME": SERVER_NAME,
                   "ATTEND_TLS_CA": "/caller/ca.crt"}  # fmt: skip
        certified = {**without, "ATTEND_CLIENT_TLS_CERT": "/caller/tls.crt", "ATTEND_CLIENT_TLS_KEY": "/caller/tls.key"}
        label, mounts = {"attend-client": "true"}, ["caller"]
        served = call_pod("labelled", "attend", label, certified, mounts)
        wait_for(lambda: outcome(served) == "Succeeded", "a caller is served")
        self.assertEqual(outcome(call_pod("unlabelled", "attend", {}, certified, mounts)), "Failed")
        self.assertEqual(outcome(call_pod("uncertified", "attend", label, without, mounts)), "Failed")

    def test_a_rolling_restart_fails_no_call(self):
        before = {pod["metadata"]["uid"] for pod in pods()}
        with self.under_load():
            kubectl("-n", "attend", "rollout", "restart", "statefulset/attend")
            kubectl("-n", "attend", "rollout", "status", "statefulset/attend", f"--timeout={TIMEOUT}s")
        self.assertFalse(before & {pod["metadata"]["uid"] for pod in pods()}, "each pod was replaced")

    def test_evictions_keep_to_the_disruption_budget_and_fail_no_call(self):
        def evict(name):
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "attend"}}
            path = f"/api/v1/namespaces/attend/pods/{name}/eviction"
            return cluster("kubectl", "create", "--raw", path, "-f", "-", text=json.dumps(body), check=False)

        wait_for(lambda: sum(map(is_ready, pods())) == 3, "three pods are ready")
        with self.under_load():
            self.assertEqual(evict("attend-0").returncode, 0)
            refused = evict("attend-1")
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("disruption budget", refused.stdout + refused.stderr)
            def leaving():
                return [pod for pod in pods() if "deletionTimestamp" in pod["metadata"]]

            wait_for(lambda: sum(map(is_ready, pods())) == 3 and not leaving(), "it is back")

    def test_a_certificate_is_renewed_through_its_secret(self):
        addresses = [pod["status"]["podIP"] for pod in pods()]

        def serials():
            command = ["exec", sys.executable, str(HERE / "caller.py"), "serial"]
            return {cluster(*command, self.door(address).to_json()).stdout.strip() for address in addresses}

        first = serials()
        with self.under_load():
            self.new_certificate()
            path = self.certificates.path
            self.put_secret("attend-tls", {"tls.crt": path("server.crt"), "tls.key": path("server.key"), "ca.crt": path("authority.crt")})
            wait_for(lambda: not first & serials(), "each pod shows the new certificate")
        self.assertEqual(len(serials()), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
