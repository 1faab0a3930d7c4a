"""Importer ``llamacpp-ops``: what llama.cpp spent in each node, as ``ggml_graph_print`` writes it into a log.

    === GRAPH ===
    n_nodes = 1124
     -   0: [  4096,     2,     1]         GET_ROWS   (  1) cpu =   0.129 /   0.129 ms, wall =   0.037 /   0.037 ms
    ...
    n_leafs = 297
     -   0: [  4096,  4096]     NONE blk.0.attn_k.weight
    ...
    perf_total_per_op_us[             ADD] =   0.617 ms

Builds with ``GGML_PERF``, before 2024-06, print it. What the model says comes between, on the same lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from melt_stream.collectors._files import numbered_lines, the_file
from melt_stream.collectors._ops import Op, Profile
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet

GRAPH = "=== GRAPH ==="
NODES_LIMIT = 1 << 20
"""Of one graph."""
LEAST_NS = 1000
"""llama.cpp's own sums count a node with at least so much."""
_COUNT = re.compile(r"n_nodes = (\d{1,9})")
_MS = r"\s*(\d{1,9}\.\d{3})"
_NODE = re.compile(
    r"\s*-\s+(\d{1,7}): \[([\s\d,]{1,80})\]\s+(\w{1,40})\s+[xg@]?\s*\(\s*(\d{1,9})\)\s+"
    rf"cpu ={_MS}\s*/{_MS} ms, wall ={_MS}\s*/{_MS} ms"
)
_TOTAL = re.compile(rf"perf_total_per_op_us\[\s*(\w{{1,40}})\] ={_MS} ms")
_FACTS = {
    "model_size": re.compile(r"llm_load_print_meta: model type\s+= (.+)"),
    "quantisation": re.compile(r"llm_load_print_meta: model ftype\s+= (.+)"),
    "build": re.compile(r"main: build = (.+)"),
    "threads": re.compile(r"system_info: n_threads = (\d+)"),
}
_ATTENDS = frozenset({"SOFT_MAX", "ROPE", "FLASH_ATTN", "FLASH_ATTN_EXT", "DIAG_MASK_INF"})
_NORMS = frozenset({"RMS_NORM", "NORM"})
_HELPS = frozenset({"MUL", "ADD"})
"""Right after a norm: its weight and bias."""


@dataclass
class _Graph:
    line: int
    expected: int | None = None
    nodes: list[Op] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)
    """By operator, ms."""


@dataclass
class LlamaCppOps:
    """Read one log to its end; ``path`` is the log. Raises ``DataError`` where it has no graph, or nodes that cannot be."""

    path: Path

    @staticmethod
    def example() -> dict[str, Any]:
        node = " - {:3}: [  4096,     1,     1] {:>16}   (  1) cpu =   0.129 /   0.129 ms, wall =   0.037 /   0.037 ms\n"
        nodes = "".join(node.format(k, op) for k, op in enumerate(("GET_ROWS", "RMS_NORM", "MUL", "MUL_MAT")))
        text = (
            f"{GRAPH}\nn_nodes = 4\n{nodes}n_leafs = 0\nperf_total_per_op_us[         MUL_MAT] =   0.037 ms\n"
        )
        return {"kind": "files", "tree": {"llama.log": text}}

    async def collect(self, out: Outlet) -> None:
        path = the_file(self.path)
        profile, warm = Profile(out), True
        graph: _Graph | None = None
        for number, text in numbered_lines(path):
            for name, pattern in _FACTS.items():
                if (found := pattern.match(text)) is not None:
                    out.fact(name, found[1].strip())
            if text.endswith(GRAPH):
                if graph is not None:
                    _finish(profile, graph, warm)
                    await out.room()
                graph = _Graph(number)
            elif text.startswith("system_info:"):  # before it, llama.cpp warms up
                if graph is not None:
                    _finish(profile, graph, warm)
                graph, warm = None, False
            elif graph is not None:
                _read(graph, text, path, number)
        if graph is not None:
            _finish(profile, graph, warm)
        if not profile.graphs:
            raise DataError(
                f"{path}: expected graphs ({GRAPH!r}, a line a node), got none; was it built with GGML_PERF?"
            )
        profile.end()


def _read(graph: _Graph, text: str, path: Path, number: int) -> None:
    if (node := _NODE.fullmatch(text)) is not None:
        if len(graph.nodes) >= NODES_LIMIT:
            raise DataError(
                f"{path}, line {number}: expected at most {NODES_LIMIT} nodes in a graph, got more"
            )
        shape = ", ".join(word.strip() for word in node[2].split(","))
        graph.nodes.append(
            Op(int(node[1]), node[3], shape, _ns(node[7]), count=max(1, int(node[4])), cpu_ns=_ns(node[5]))
        )
    elif (count := _COUNT.fullmatch(text)) is not None:
        graph.expected = int(count[1])
    elif (total := _TOTAL.fullmatch(text)) is not None:
        graph.totals[total[1]] = float(total[2])


def _ns(ms: str) -> int:
    return int(ms.replace(".", "")) * 1000


def _finish(profile: Profile, graph: _Graph, warm: bool) -> None:
    number = profile.add(located(graph.nodes), "warmup" if warm else _phase(graph.nodes))
    numbers = [node.node for node in graph.nodes]
    if numbers != list(range(graph.expected if graph.expected is not None else len(numbers))):
        expected = "any" if graph.expected is None else graph.expected
        lost = None if graph.expected is None else max(0, graph.expected - len(set(numbers)))
        profile.lost(f"line {graph.line}: expected {expected} nodes in order, got {len(numbers)}", lost)
        return
    sums: dict[str, int] = {}
    for node in graph.nodes:
        sums[node.op] = sums.get(node.op, 0) + max(LEAST_NS, node.duration_ns)
    for op, reported in graph.totals.items():
        profile.check(f"graph {number} {op}", "ms", reported, sums.get(op, 0) / 1e6)


def _phase(nodes: Sequence[Op]) -> str | None:
    """Prompts are computed some tokens at a time, answers one: the second extent of the embedding's rows."""
    for node in nodes:
        if node.op == "GET_ROWS":
            tokens = node.shapes.split(", ")[1:2]
            return None if not tokens else "decode" if tokens == ["1"] else "prefill"
    return None


def located(nodes: Sequence[Op]) -> list[Op]:
    """Say which module and layer each node is of, as far as the order of a transformer tells.

    Each norm begins a block; blocks with a softmax or a rotation are attention, the one after each is its layer's mlp, the last
    the head. Where they do not take turns like that (norms within attention, experts), nothing is said.
    """
    starts = [k for k, node in enumerate(nodes) if node.op in _NORMS]
    edges = [*starts, len(nodes)]
    blocks = [nodes[a:b] for a, b in pairwise(edges)]
    attends = [any(node.op in _ATTENDS for node in block) for block in blocks]
    if len(blocks) % 2 == 0 or attends != [k % 2 == 0 and k < len(blocks) - 1 for k in range(len(blocks))]:
        return list(nodes)
    before = nodes[: starts[0]] if starts else nodes
    found = [replace(node, module="embedding") for node in before]
    for k, block in enumerate(blocks):
        module = "head" if k == len(blocks) - 1 else "attention" if attends[k] else "mlp"
        found += _block(block, module, None if module == "head" else k // 2)
    return found


def _block(block: Sequence[Op], module: str, layer: int | None) -> Iterator[Op]:
    norm = True
    for k, node in enumerate(block):
        norm = norm and (k == 0 or node.op in _HELPS)
        yield replace(node, module="norm" if norm else module, layer=layer)
