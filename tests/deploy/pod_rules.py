"""What must hold of the pods of an overlay: what they mount and name is there, what they may do is little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.deploy.manifests import Document, Service, container, of_kind, quantity

CALLBACK = {"name": "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "value": "serve.proxy:middlewares"}
BY_HAND = {("Secret", "dsr-api-keys"), ("Secret", "dsr-redis")}  # of which deploy/README.md says how they are made
CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_problems(documents: list[Document], ours: Service) -> Iterator[str]:
    others = [*of_kind(documents, "Job"), *of_kind(documents, "StatefulSet")]
    named = {f"{other['kind']} {other['metadata']['name']}": other["spec"]["template"] for other in others}
    there = {(document["kind"], document["metadata"]["name"]) for document in documents} | BY_HAND
    for name, template in {**ours.templates, **named}.items():
        yield from security_problems(name, template)
        yield from reference_problems(name, template, there)
    for name, template in ours.templates.items():
        yield from ray_pod_problems(name, template, ours)
    yield from path_problems(ours)
    yield from selector_problems(documents, [*ours.templates.values(), *named.values()])


def security_problems(name: str, template: Document) -> Iterator[str]:
    spec = template["spec"]
    context = spec.get("securityContext", {})
    if not context.get("runAsNonRoot") or context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield f"{name}: the pod is not confined: {context}"
    if not spec.get("serviceAccountName"):
        yield f"{name}: it has the namespace's default account"
    if spec.get("automountServiceAccountToken") is not (name == "head"):
        yield f"{name}: only the head talks to the API server, and needs a token of it"
    for each in (*spec.get("initContainers", ()), *spec["containers"]):
        if each.get("securityContext") != CONFINED:
            yield f"{name}: container {each['name']} is not confined: {each.get('securityContext')}"
        if each["image"].rpartition(":")[2] in ("latest", each["image"]):
            yield f"{name}: container {each['name']} has the image {each['image']}, of no stated version"
        if "memory" not in each["resources"]["limits"]:
            yield f"{name}: container {each['name']} has no bound of memory"


def reference_problems(name: str, template: Document, there: set[tuple[str, str]]) -> Iterator[str]:
    """A volume that nothing mounts is a mistake, too."""
    spec = template["spec"]
    containers = (*spec.get("initContainers", ()), *spec["containers"])
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    mounted = {mount["name"] for each in containers for mount in each.get("volumeMounts", ())}
    claimed = {"data"} if name == "StatefulSet dsr-redis" else set()
    for volume in mounted - claimed ^ volumes.keys():
        yield f"{name}: {volume} is mounted or a volume, and not both"
    named = [("PersistentVolumeClaim", v.get("persistentVolumeClaim", {}).get("claimName")) for v in volumes.values()]
    named += [("Secret", volume.get("secret", {}).get("secretName")) for volume in volumes.values()]
    named += [("ConfigMap", e["configMapRef"]["name"]) for each in containers for e in each.get("envFrom", ())]
    secrets = [e.get("valueFrom", {}).get("secretKeyRef", {}) for each in containers for e in each.get("env", ())]
    named += [("Secret", secret.get("name")) for secret in secrets]
    named += [("ServiceAccount", spec.get("serviceAccountName"))]
    for kind, other in named:
        if other is not None and (kind, other) not in there:
            yield f"{name}: there is no {kind} {other}"


def ray_pod_problems(name: str, template: Document, ours: Service) -> Iterator[str]:
    ray = container(template)
    if CALLBACK not in ray["env"]:
        yield f"{name}: {CALLBACK['name']} is not {CALLBACK['value']}: clients could switch limits off"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe not in ray:
            yield f"{name}: it has no {probe}, and KubeRay's own needs wget"
    mounts = {mount["mountPath"]: mount["name"] for mount in ray["volumeMounts"]}
    for path in ("/tmp", "/dev/shm"):
        if path not in mounts:
            yield f"{name}: {path} is read-only"
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    memory = volumes[mounts["/dev/shm"]].get("emptyDir", {})
    params = (ours.head if name == "head" else ours.groups[name])["rayStartParams"]
    if memory.get("medium") != "Memory" or int(params["object-store-memory"]) > quantity(memory["sizeLimit"]):
        yield f"{name}: the object store has {params['object-store-memory']} bytes, /dev/shm is {memory}"
    if quantity(memory["sizeLimit"]) >= quantity(ray["resources"]["limits"]["memory"]):
        yield f"{name}: /dev/shm may take all of the pod's memory"
    if name != "head" and ray["readinessProbe"]["httpGet"] != {"path": "/-/healthz", "port": 8000}:
        yield f"{name}: it must be ready when Serve's proxy on it is"


def path_problems(ours: Service) -> Iterator[str]:
    """The paths of the Serve config are mounted where they are used."""
    settings = ours.settings
    keys = settings.ingress.access.keys_file
    if keys is None:
        yield "ingress.access.keys_file: without it the service answers to nobody"
    users = {settings.checkpoint: set(ours.templates)}
    if settings.reconstructor is not None:  # where the application is built, too: on any node
        users[settings.reconstructor.checkpoint] = set(ours.templates)
    if "://" not in settings.store.url:
        users[settings.store.url] = {ours.group_of("ingress"), ours.group_of("frames")}
    if keys is not None:
        users[str(keys)] = {ours.group_of("ingress")}
    for path, names in users.items():
        if path.startswith("/app/"):
            continue  # in the image
        for name in sorted(names):
            mounts = [mount["mountPath"] for mount in container(ours.templates[name])["volumeMounts"]]
            if not any(PurePosixPath(path).is_relative_to(mount) for mount in mounts):
                yield f"{name}: {path} is on no volume of it"


def selector_problems(documents: list[Document], templates: list[Document]) -> Iterator[str]:
    """A budget, a policy or a Service selects pods that there are."""
    added = [{"ray.io/is-ray-node": "yes", "ray.io/node-type": kind} for kind in ("head", "worker")]
    labels = [template["metadata"]["labels"] | more for template in templates for more in added]
    labels += [{"ray.io/node-type": "redis-cleanup"}]
    labels += [{"app.kubernetes.io/name": name} for name in ("kuberay-operator", "prometheus")]  # of others
    # Whether there is Redis is for each overlay to say; the policies of those without name a pod that never comes.
    later = {"app.kubernetes.io/part-of": "dsr-serve"}
    labels += [{**later, "app.kubernetes.io/component": kind} for kind in ("redis", "weights")]
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        for selector in _selectors(document):
            if not any(selector.items() <= each.items() for each in labels):
                yield f"{name}: no pod has the labels {selector}"


def _selectors(document: Document) -> Iterator[Document]:
    spec = document.get("spec", {})
    if document["kind"] == "Service":
        yield spec["selector"]
    elif document["kind"] == "PodDisruptionBudget":
        yield spec["selector"]["matchLabels"]
    elif document["kind"] == "NetworkPolicy":
        yield spec["podSelector"].get("matchLabels", {})
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            for peer in (*rule.get("from", ()), *rule.get("to", ())):
                yield peer.get("podSelector", {}).get("matchLabels", {})
