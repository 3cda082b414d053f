"""A hub on this machine that serves folders of checkpoints, by ranges where it can, and counts the bytes."""

import contextlib
import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class RangeHub(ThreadingHTTPServer):
    """`folders`: hub id -> folder. Faults are set by tests on the attributes."""

    daemon_threads = True

    def __init__(self, folders):
        super().__init__(("127.0.0.1", 0), Answering)
        self.folders = folders
        self.sent = Counter()  # file name -> bytes of bodies
        self.requests = []  # (file name, range or None)
        self.knows_ranges = True
        self.breaks_after = None  # bytes of an answer after which the connection is closed, once
        self.statuses = []  # of the next answers, instead of what was asked for
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Say nothing: who asked has hung up, because it wanted a part or met its own error."""

    def forget(self):
        self.sent.clear()
        self.requests.clear()

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

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = urlsplit(self.path).path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        repo, rest = (
            ("/".join(parts[2:4]), parts[4:]) if is_api else ("/".join(parts[:2]), parts[2:])
        )
        if (folder := self.server.folders.get(repo)) is None:
            return self.reply(404, headers={"X-Error-Code": "RepoNotFound"})
        if is_api:
            names = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
            body = json.dumps({"id": repo, "sha": COMMIT, "siblings": names}).encode()
            return self.reply(200, body, {"Content-Type": "application/json"})
        if not (folder / rest[2]).is_file():  # resolve/COMMIT/NAME
            return self.reply(404, headers={"X-Error-Code": "EntryNotFound"})
        return self.send_file(rest[2], (folder / rest[2]).read_bytes())

    def send_file(self, name, content):
        server, asked = self.server, self.headers.get("Range")
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": COMMIT}
        if self.command == "GET":
            server.requests.append((name, asked))
            if server.statuses:
                return self.reply(server.statuses.pop(0))
        if not asked or not server.knows_ranges or self.command == "HEAD":
            return self.reply(200, content, headers, name)
        start, stop = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        if start >= len(content):
            return self.reply(416, headers={"Content-Range": f"bytes */{len(content)}"})
        body = content[start : stop + 1]
        headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        return self.reply(206, body, headers, name)

    def reply(self, status, body=b"", headers=(), name=None):
        self.send_response(status)
        for key, value in {"Content-Length": len(body), **dict(headers)}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "GET":
            return
        limit, is_small = self.server.breaks_after, name is None or not name.endswith("safetensors")
        if limit is not None and not is_small and limit < len(body):
            self.server.breaks_after = None
            body, self.close_connection = body[:limit], True
        if name:
            self.server.sent[name] += len(body)  # before: who has it may ask for the count at once
        with contextlib.suppress(ConnectionError):  # who asked has hung up: it wanted a part
            self.wfile.write(body)
