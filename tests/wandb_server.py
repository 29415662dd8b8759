"""A W&B server on this machine: it speaks as much of the protocol as wandb's client needs, and records all of it.

Queries in GraphQL, the stream of history and summary, uploads of files and artifacts. It can stop and start again on
the same port, as a server that is restarted, with what it knew.
"""

import base64
import json
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a" * 40
"""The key that is accepted."""
ENTITY = "someone"


@dataclass
class LoggedRun:
    """What a run logged."""

    name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    """``displayName``, ``groupName``, ``jobType``, ``tags``, ``notes``, ``project``."""
    config: dict[str, Any] = field(default_factory=dict)
    raw_config: str = "{}"
    """As the client sent it."""
    history: list[dict[str, Any]] = field(default_factory=list)
    received: list[float] = field(default_factory=list)
    """When the rows of ``history`` arrived: ``time.time()``."""
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    def values(self, key: str) -> list[Any]:
        """The values of a key in the history, in order."""
        return [row[key] for row in self.history if key in row]


@dataclass
class LoggedArtifact:
    """An artifact, with its files by path once it is committed."""

    run: str
    name: str
    type: str
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class WandbServer:
    """See above; use as a context manager."""

    def __init__(self) -> None:
        self.port = 0
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self._http: ThreadingHTTPServer | None = None
        self.connections: set[socket.socket] = set()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.key = KEY
        self.runs: dict[str, LoggedRun] = {}
        self.artifacts: dict[str, LoggedArtifact] = {}
        self.views: list[Any] = []
        """Saved workspaces."""
        self.requests: list[str] = []
        """The names of all GraphQL operations, and paths of other requests."""
        self.refused = 0
        """Requests with a wrong key."""
        self.clients: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Accept connections, on the port of before; without effect where it does."""
        if self._http:
            return
        server = self

        class Handler(_Handler):
            state = server

        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Break all connections, and refuse new ones until ``start``."""
        http, self._http = self._http, None
        if http:
            http.shutdown()
            http.server_close()
        for connection in [*self.connections]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "WandbServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for(self, met: Any, seconds: float = 30.0) -> bool:
        """Whether a condition on what was logged is met within some seconds."""
        with self.changed:
            return self.changed.wait_for(met, seconds)

    def artifacts_of(self, run: str, kind: str) -> list[LoggedArtifact]:
        return [one for one in self.artifacts.values() if (one.run, one.type) == (run, kind) and one.committed]

    # operations of GraphQL, by name

    def answer(self, operation: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL operation; of an unknown one, nothing."""
        handler = getattr(self, f"_do_{operation.lower()}", None)
        return handler(given) if handler else {}

    def _do_viewer(self, given: Mapping[str, Any]) -> dict[str, Any]:
        viewer = {
            "id": "user",
            "entity": ENTITY,
            "username": ENTITY,
            "email": "",
            "flags": "{}",
            "teams": {"edges": []},
        }
        return {"viewer": viewer}

    def _do_serverfeaturesquery(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _bucket(self, run: LoggedRun) -> dict[str, Any]:
        project = {"id": "project", "name": run.attributes["project"], "entity": {"id": "entity", "name": ENTITY}}
        return {
            "id": run.name,
            "name": run.name,
            "displayName": run.attributes.get("displayName"),
            "description": None,
            "config": run.raw_config,
            "sweepName": None,
            "project": project,
            "tags": [],
            "notes": None,
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": {}}),
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
        }

    def _do_runresumestatus(self, given: Mapping[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        bucket = self._bucket(run) if run else None
        entity = {"id": "entity", "name": ENTITY}
        return {"model": {"id": "project", "name": given["project"], "entity": entity, "bucket": bucket}}

    def _do_upsertbucket(self, given: Mapping[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given["id"]
        new = name not in self.runs
        run = self.runs.setdefault(name, LoggedRun(name, {"project": given.get("project")}))
        run.attributes |= {key: value for key, value in given.items() if value is not None and key != "config"}
        if given.get("config"):
            run.raw_config = given["config"]
            run.config = {key: own["value"] for key, own in json.loads(given["config"]).items() if key != "_wandb"}
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": new}}

    def _do_createrunfiles(self, given: Mapping[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/run/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _do_createartifact(self, given: Mapping[str, Any]) -> dict[str, Any]:
        own = given["input"]
        identifier = f"artifact{len(self.artifacts)}"
        run, name, kind = own.get("runName", ""), own["artifactCollectionName"], own["artifactTypeName"]
        self.artifacts[identifier] = LoggedArtifact(run, name, kind)
        self.clients[own.get("clientID", "")] = identifier
        sequence = {"id": "sequence", "name": name, "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": identifier, "state": "PENDING", "artifactSequence": sequence}}}

    def _do_createartifactmanifest(self, given: Mapping[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/manifest/{given['artifactID']}"
        file = {"id": "file", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": given["artifactID"], "file": file}}}

    def _do_updateartifactmanifest(self, given: Mapping[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/manifest/{given['artifactManifestID']}"
        file = {"id": "file", "uploadUrl": url, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": given["artifactManifestID"], "file": file}}}

    def _do_createartifactfiles(self, given: Mapping[str, Any]) -> dict[str, Any]:
        edges = []
        for one in given["input"]["artifactFiles"]:
            url = f"{self.url}/artifact/{one['artifactID']}/{one['name']}"
            node = {"storagePath": one["name"], "uploadUrl": url, "uploadHeaders": [], "uploadMultipartUrls": None}
            edges.append({"node": {**node, "artifact": {"id": one["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _do_commitartifact(self, given: Mapping[str, Any]) -> dict[str, Any]:
        self.artifacts[given["artifactID"]].committed = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}

    def _do_clientidmapping(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"clientIDMapping": {"serverID": self.clients.get(given["clientID"])}}

    def _do_artifacttype(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def _do_upsertview2(self, given: Mapping[str, Any]) -> dict[str, Any]:
        self.views.append(json.loads(given["spec"]))
        view = {"id": "view", "type": given["type"], "name": given["name"], "displayName": given["displayName"]}
        return {"upsertView": {"view": {**view, "spec": given["spec"]}, "inserted": True}}

    def _do_runstate(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"id": given["run"], "state": "running"}}}

    def _do_markrunfilesuploaded(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"markRunFilesUploaded": {"success": True}}

    def stream(self, name: str, body: Mapping[str, Any]) -> None:
        """Take in a message of the stream of a run."""
        run = self.runs[name]
        for file, chunk in (body.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                rows = [json.loads(line) for line in chunk["content"]]
                run.history[chunk["offset"] :] = rows
                run.received[chunk["offset"] :] = [time.time()] * len(rows)
            elif file == "wandb-summary.json":
                run.summary = json.loads(chunk["content"][-1])
        if body.get("complete"):
            run.exit_code = body.get("exitcode")

    def upload(self, path: str, content: bytes) -> None:
        """Take in a file."""
        kind, name, *rest = path.strip("/").split("/", 2)
        if kind == "run":
            self.runs[name].files[rest[0]] = content
            if rest[0] == "wandb-summary.json":
                self.runs[name].summary = json.loads(content)
        elif kind == "artifact":
            self.artifacts[name].files[rest[0]] = content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: WandbServer

    def handle(self) -> None:
        self.state.connections.add(self.connection)
        with suppress(OSError):  # the client is gone, or ``stop`` was called
            super().handle()
        self.state.connections.discard(self.connection)

    def do_POST(self) -> None:
        body = self._read()
        if not self._is_allowed():
            return
        state, path = self.state, self.path.split("?")[0]
        with state.changed:
            if path == "/graphql":
                asked = json.loads(body)
                operation = asked.get("operationName") or asked["query"].split("(")[0].split("{")[0].split()[-1]
                state.requests.append(operation)
                self._reply({"data": state.answer(operation, asked.get("variables") or {})})
            elif path.endswith("/file_stream"):
                state.requests.append("file_stream")
                state.stream(path.split("/")[-2], json.loads(body))
                self._reply({})
            else:
                state.requests.append(path)
                self._reply({}, 404)
            state.changed.notify_all()

    def do_PUT(self) -> None:
        body = self._read()
        with self.state.changed:
            self.state.requests.append("upload")
            self.state.upload(self.path.split("?")[0], body)
            self.state.changed.notify_all()
        self._reply({})

    def do_GET(self) -> None:
        self.state.requests.append(self.path)
        self._reply({}, 404)

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _is_allowed(self) -> bool:
        scheme, _, text = self.headers.get("Authorization", "").partition(" ")
        key = base64.b64decode(text).decode().partition(":")[2] if scheme == "Basic" else text
        if key == self.state.key:
            return True
        self.state.refused += 1
        self._reply({"errors": [{"message": "user is not logged in"}]}, 401)
        return False

    def _reply(self, content: Any, code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
