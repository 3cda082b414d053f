"""A hub on this machine: serves one model's folder with ranges, and counts the bytes that it sends."""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = "bench/llama"
COMMIT = "0" * 40


class Server(ThreadingHTTPServer):
    """`GET /sent` tells how many bytes of files were sent so far."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.sent, self.lock = folder, 0, threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts == ["sent"]:
            return self.reply(200, str(self.server.sent).encode())
        if parts[:2] == ["api", "models"]:
            files = list(self.server.folder.iterdir())
            facts: Any = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": COMMIT}
                for file in files
            ]
            if "tree" not in parts:
                names = [{"rfilename": file.name} for file in files]
                facts = {"id": MODEL, "sha": COMMIT, "siblings": names}
            return self.reply(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})
        path = self.server.folder / parts[-1]
        if "/".join(parts[:3]) != f"{MODEL}/resolve" or not path.is_file():
            return self.reply(404, headers={"X-Error-Code": "EntryNotFound"})
        return self.send_file(path)

    def send_file(self, path: Path) -> None:
        size = path.stat().st_size
        etag = f'"{hashlib.sha256(path.name.encode()).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        start, stop = 0, size
        if asked:
            first, _, last = asked.partition("-")
            start, stop = int(first), int(last) + 1 if last else size
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self.reply(206 if asked else 200, None, headers, length=stop - start)
        if self.command == "GET":
            with path.open("rb") as file, contextlib.suppress(ConnectionError):
                while start < stop:
                    done = os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)
                    start += done
                    with self.server.lock:
                        self.server.sent += done

    def reply(
        self,
        status: int,
        body: bytes | None = b"",
        headers: dict[str, str] | None = None,
        length: int = 0,
    ) -> None:
        self.send_response(status)
        for key, value in {
            "Content-Length": str(length or len(body or b"")),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if body and self.command == "GET":
            self.wfile.write(body)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder as MODEL and yield the hub's address."""
    server = Server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
