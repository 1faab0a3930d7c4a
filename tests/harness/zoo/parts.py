"""What the zoo's tests share: a GGUF file made to order, a hub on loopback, the command line in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from gguf import GGUFWriter

from melt_stream.clock import monotonic

COMMIT = "c0ffee" + "0" * 34
LARGE = (".gguf", ".safetensors")


def write_gguf(path: Path, *, width: int = 64, filler: int = 0, **more: Any) -> Path:
    """A model of one layer, whose embedding has 32 tokens; ``filler`` more elements in F16."""
    writer = GGUFWriter(str(path), "llama")
    writer.add_name("Tiny")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_head_count(4)
    writer.add_head_count_kv(more.get("kv_heads", 2))
    writer.add_file_type(1)
    for key, value in more.items():
        if key != "kv_heads":
            writer.add_uint32(f"llama.{key}".replace("__", "."), value)
    writer.add_array("tokenizer.ggml.tokens", [f"t{n}" for n in range(32)])
    writer.add_tensor("token_embd.weight", np.zeros((32, width), np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(width, np.float32))
    if filler:
        writer.add_tensor("filler.weight", np.zeros((filler // 64, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def eventually(true: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Return when something that another process does is so."""
    end = monotonic() + seconds * 1e9
    while not true():
        assert monotonic() < end, f"expected {what} within {seconds} s"
        time.sleep(0.005)


def melt(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return started(*arguments, **environment).finished()


@dataclass
class Started:
    process: subprocess.Popen[str]

    def finished(self) -> subprocess.CompletedProcess[str]:
        out, err = self.process.communicate(timeout=100)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)


def started(*arguments: object, **environment: str) -> Started:
    command = [sys.executable, "-m", "melt_stream", *map(str, arguments)]
    env = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    return Started(
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    )


@dataclass
class Hub:
    """Serves repositories as the Hugging Face hub does: what a repository holds, and its files, in parts if asked."""

    files: dict[str, dict[str, bytes]]
    """By repository, by name; names that end in .gguf or .safetensors are large ones (LFS)."""
    gated: int = 0
    """Status for every file: 401 or 403."""
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What it says of a file, where that is not so: ``sha256``, ``size``."""
    cut: int = 0
    """The next file's connection breaks after so many bytes."""
    stall: int = 0
    """The next file stops after so many bytes, until it is told to go on."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, range."""
    go_on: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __enter__(self) -> Hub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def ranges(self) -> list[str]:
        """What was asked for of the files' content."""
        return [told for method, path, told in self.asked if method == "GET" and path.startswith("/cdn/")]

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        path = urlsplit(to.path).path
        self.asked.append((to.command, path, to.headers.get("Range", "")))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/[^/]+", path):
            self._tell(to, found[1])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._send(to, found[1], found[2], elsewhere=found[2].endswith(LARGE))
        elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._send(to, found[1], found[2])
        else:
            self._say(to, 404, b"{}")

    def _tell(self, to: BaseHTTPRequestHandler, repository: str) -> None:
        if repository not in self.files:
            self._say(
                to, 401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            )
            return
        siblings = [self._file(name, data) for name, data in self.files[repository].items()]
        told = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}
        self._say(to, 200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, data: bytes) -> dict[str, Any]:
        claim = self.claims.get(name, {})
        told: dict[str, Any] = {"rfilename": name, "size": claim.get("size", len(data)), "blobId": "b" * 40}
        if name.endswith(LARGE):
            digest = claim.get("sha256", hashlib.sha256(data).hexdigest())
            told["lfs"] = {"sha256": digest, "size": told["size"], "pointerSize": 133}
        return told

    def _send(
        self, to: BaseHTTPRequestHandler, repository: str, name: str, *, elsewhere: bool = False
    ) -> None:
        data = self.files.get(repository, {}).get(name)
        if self.gated:
            self._say(
                to, self.gated, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
            )
        elif data is None:
            self._say(to, 404, b"", {"X-Error-Code": "EntryNotFound"})
        elif elsewhere:  # large files lie on another server
            self._say(to, 302, b"", {"Location": f"{self.url}/cdn/{repository}/{name}"})
        else:
            at = re.match(r"bytes=(\d+)-", to.headers.get("Range", ""))
            first = int(at[1]) if at else 0
            to.send_response(206 if at else 200)
            to.send_header("Content-Length", str(len(data) - first))
            if at:
                to.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            to.end_headers()
            self._body(to, data[first:])

    def _body(self, to: BaseHTTPRequestHandler, data: bytes) -> None:
        cut, stall, self.cut, self.stall = self.cut, self.stall, 0, 0
        try:
            to.wfile.write(data[: cut or stall or len(data)])
            if stall:
                to.wfile.flush()
                self.go_on.wait()
        except OSError:
            pass  # whoever asked was killed
        if cut or stall:
            to.close_connection = True

    def _say(
        self, to: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        to.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            to.send_header(name, value)
        to.end_headers()
        if to.command == "GET":
            to.wfile.write(body)
