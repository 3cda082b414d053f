"""A hub on this machine that takes files: accounts, repositories and commits, as a push asks for them."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_thisIsASecretTokenToWrite"
LARGE = (".safetensors", ".gz")


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class PushHub(ThreadingHTTPServer):
    """`repos`: (kind, id) -> {"private": ..., "files": {name: bytes}, "commits": [[changed names]]}.

    `statuses`: a part of a path (`create`, `commit`, `batch`, ...) -> the status that it answers with.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.repos, self.statuses, self.large, self.asked = {}, {}, {}, []
        self.is_shared = False  # somebody else commits while files are on their way
        self.address = f"http://127.0.0.1:{self.server_port}"

    @contextlib.contextmanager
    def running(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def reply(self, status, value=None, headers=()):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        json_type = {"Content-Type": "application/json", "Content-Length": len(body)}
        for name, text in {**json_type, **dict(headers)}.items():
            self.send_header(name, str(text))
        self.end_headers()
        self.wfile.write(body)

    def answer(self):
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in path.strip("/").split("/")]
        self.server.asked.append((self.command, path))
        if self.command == "PUT":  # to the storage, which needs no account
            self.server.large[parts[-1]] = body
            return self.reply(200)
        if status := next((s for p, s in self.server.statuses.items() if p in parts), None):
            return self.reply(
                status, {"error": f"{self.headers.get('Authorization')} is not liked"}
            )
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(401, {"error": "Invalid username or password."})
        if parts == ["api", "whoami-v2"]:
            return self.reply(200, {"name": "me"})
        if parts == ["api", "validate-yaml"]:
            return self.reply(200, {"errors": [], "warnings": []})
        if parts == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        if parts[-1] == "batch":
            return self.batch(json.loads(body))
        kind, repo = parts[1].removesuffix("s"), "/".join(parts[2:4])
        if (kind, repo) not in self.server.repos:
            return self.reply(
                404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
            )
        found = self.server.repos[kind, repo]
        if parts[4:5] == ["preupload"]:
            found["commits"] += [["another's"]] if self.server.is_shared else []
            return self.preupload(found, json.loads(body))
        if parts[4:5] == ["commit"]:
            return self.commit(found, repo, body)
        return self.reply(200, self.info(found, repo))

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def do_PUT(self):
        self.answer()

    def create(self, wanted):
        repo = f"{wanted['organization']}/{wanted['name']}"
        private = wanted.get("visibility") == "private"
        self.server.repos[wanted.get("type", "model"), repo] = {
            "private": private, "files": {}, "commits": []
        }  # fmt: skip
        return self.reply(200, {"url": f"{self.server.address}/{repo}"})

    def info(self, found, repo):
        files = []
        for name, content in found["files"].items():
            file = {"rfilename": name, "size": len(content), "blobId": git_hash(content)}
            if name.endswith(LARGE):
                sha = hashlib.sha256(content).hexdigest()
                file |= {"blobId": git_hash(sha.encode())}
                file["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
            files.append(file)
        number = len(found["commits"])
        return {"id": repo, "sha": f"{number:040x}", "private": found["private"], "siblings": files}

    def preupload(self, found, wanted):
        def mode(file):
            content = found["files"].get(file["path"])
            large = file["path"].endswith(LARGE)
            oid = content and (hashlib.sha256(content).hexdigest() if large else git_hash(content))
            how = "lfs" if large else "regular"
            return {"path": file["path"], "uploadMode": how, "shouldIgnore": False, "oid": oid}

        return self.reply(200, {"files": [mode(file) for file in wanted["files"]]})

    def batch(self, wanted):
        def action(thing):
            if thing["oid"] in self.server.large:
                return thing
            href = f"{self.server.address}/storage/{thing['oid']}"
            return {**thing, "actions": {"upload": {"href": href, "header": {}}}}

        answer = {"transfer": "basic", "objects": [action(thing) for thing in wanted["objects"]]}
        return self.reply(200, answer, {"Content-Type": "application/vnd.git-lfs+json"})

    def commit(self, found, repo, body):
        changed = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                parent = value.get("parentCommit")
                if parent not in (None, f"{len(found['commits']):040x}"):
                    return self.reply(412, {"error": "A commit has happened since"})
                continue
            changed.append((line["key"], value["path"]))
            if line["key"] == "file":
                found["files"][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found["files"][value["path"]] = self.server.large[value["oid"]]
            else:
                del found["files"][value["path"]]
        found["commits"].append(changed)
        oid = f"{len(found['commits']):040x}"
        return self.reply(
            200, {"commitUrl": f"{self.server.address}/{repo}/commit/{oid}", "commitOid": oid}
        )
