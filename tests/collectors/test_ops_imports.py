"""Per-operator profiles: MELT's own logs of llama.cpp and of MLC, and damaged ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.collectors._ops import Op
from melt_stream.collectors.llamacpp_ops import LlamaCppOps, located
from melt_stream.collectors.tvm_ops import TvmOps, op_of
from melt_stream.errors import DataError
from melt_stream.harness.session import import_recording
from tests.collectors.importing import imported_by_the_engine as imported

TRACES = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[2] / "../shared/traces"))
LOGS = TRACES / "melt_public" / "src" / "parsers" / "test_files"
LLAMA, MLC = LOGS / "dummy_file.llamacpp.log", LOGS / "dummy_file.mlc.log"
recorded = pytest.mark.skipif(not LLAMA.exists(), reason="expected ../shared/traces")


def packed(kind, path, archive):
    return pack(import_recording(kind, path, archive))


def asked(run, query):
    return connect(run.path, query).sql(query).fetchall()


@recorded
def test_melts_log_of_llama_cpp_comes_out_whole_and_adds_up_to_its_own_sums(tmp_path):
    run = packed("llamacpp-ops", LLAMA, tmp_path)
    assert asked(run, "SELECT graph, count(*), max(node) FROM ops GROUP BY graph ORDER BY graph") == [
        (graph, 1124, 1123) for graph in range(29)
    ]
    assert asked(run, "SELECT phase, count(DISTINCT graph) FROM ops GROUP BY phase ORDER BY phase") == [
        ("decode", 27), ("prefill", 1), ("warmup", 1)
    ]  # fmt: skip
    sums = asked(run, "SELECT quantity, reported, recomputed FROM oracles")
    assert len(sums) == 29 * 15
    assert max(abs(reported - ours) for _, reported, ours in sums) < 1e-6
    assert asked(run, "FROM gaps") == []
    # 32 layers, and what comes before and after them
    assert asked(run, "SELECT module, count(*), count(DISTINCT layer) FROM ops WHERE graph = 0 GROUP BY module ORDER BY 1") == [
        ("attention", 32 * 25, 32), ("embedding", 1, 0), ("head", 1, 0), ("mlp", 32 * 6, 32), ("norm", 32 * 4 + 2, 32),
    ]  # fmt: skip
    ((share,),) = asked(run, "SELECT sum(share) FROM op_shares WHERE phase = 'decode' AND op = 'MUL_MAT'")
    assert 0.95 < share < 1
    assert asked(run, "SELECT DISTINCT round(sum(share), 9) FROM op_shares GROUP BY phase") == [(1.0,)]


@recorded
def test_melts_log_of_mlc_has_every_call_and_the_tables_sums(tmp_path):
    run = packed("tvm-ops", MLC, tmp_path)
    assert asked(run, "SELECT graph, function, phase, count(*) FROM ops GROUP BY ALL ORDER BY graph") == [
        (k, *what)
        for k, what in enumerate(
            3 * [("decode", "decode", 1818), ("softmax_with_temperature", "sampling", 5)]
        )
    ]
    for _, reported, ours in asked(run, "SELECT quantity, reported, recomputed FROM oracles"):
        assert ours == pytest.approx(
            reported, abs=1.0
        )  # each call is rounded to a ns, the table's to 0.01 us
    ((top, share),) = asked(
        run, "SELECT op, sum(share) FROM op_shares WHERE phase = 'decode' GROUP BY op ORDER BY 2 DESC LIMIT 1"
    )
    assert (top, share > 0.5) == ("matmul", True)


@recorded
def test_the_table_alone_gives_the_same_sums_as_the_calls(tmp_path):
    (tmp_path / "t.log").write_text(
        "".join(line for line in MLC.read_text().splitlines(True) if not line.startswith('{"calls"'))
    )
    query = "SELECT graph, name, sum(count), sum(duration_ns) FROM ops GROUP BY ALL ORDER BY ALL"
    calls, table = (
        asked(packed("tvm-ops", path, tmp_path / name), query)
        for name, path in (("a", MLC), ("b", tmp_path / "t.log"))
    )
    assert [row[:3] for row in calls] == [row[:3] for row in table]
    assert max(abs(int(a[3]) - int(b[3])) for a, b in zip(calls, table, strict=True)) <= 5 * 45


NODE = (
    " - {:3}: [  4096,     1,     1] {:>16}   (  1) cpu =   0.129 /   0.129 ms, wall =   0.037 /   0.037 ms\n"
)


def graph(*ops, n=None):
    nodes = "".join(NODE.format(k, op) for k, op in enumerate(ops))
    return f"word=== GRAPH ===\nn_nodes = {len(ops) if n is None else n}\n{nodes}n_leafs = 0\n"


def test_a_cut_graph_is_a_gap(tmp_path):
    path = tmp_path / "log"
    path.write_text(graph("GET_ROWS", "ADD", n=5) + graph("GET_ROWS"))
    keep = imported(LlamaCppOps(path))
    assert [(row["lost_rows"], row["reason"]) for row in keep.rows("run.gaps")] == [
        (3, "line 1: expected 5 nodes in order, got 2")
    ]
    assert len(keep.rows("it.ops")) == 3


def test_a_report_without_its_sum_is_a_gap_and_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "log"
    head = "x: Report from function prefill:\n"
    call = {"Name": {"string": "take"}, "Duration (us)": {"microseconds": 1.5}}
    path.write_text(head + json.dumps({"calls": [call]}) + "\n")
    keep = imported(TvmOps(path))
    assert (
        keep.rows("run.gaps")[0]["reason"] == "line 1: expected a report with its sum, got 1 calls and none"
    )
    assert [(row["op"], row["module"], row["phase"], row["duration_ns"]) for row in keep.rows("it.ops")] == [
        ("take", "embedding", "prefill", 1500)
    ]
    for text in (
        '{"calls": [{}]}',
        '{"calls"',
        '{"calls": [' + json.dumps({**call, "Duration (us)": {"microseconds": 1e99}}) + "]}",
    ):
        path.write_text(head + text + "\n")
        with pytest.raises(DataError, match="log, line 2: expected a report as JSON"):
            imported(TvmOps(path))


@pytest.mark.parametrize("importer", [LlamaCppOps, TvmOps])
def test_a_log_without_any_is_refused(importer, tmp_path):
    (tmp_path / "log").write_text("hello\n")
    with pytest.raises(DataError, match="got none"):
        imported(importer(tmp_path))


def test_modules_are_told_only_where_the_order_is_a_transformers():
    layer = ["RMS_NORM", "MUL", "ROPE", "RMS_NORM", "MUL_MAT"]
    nodes = [
        Op(k, op, "", 1) for k, op in enumerate(["GET_ROWS", *layer, *layer, "RMS_NORM", "MUL", "MUL_MAT"])
    ]
    assert [(node.module, node.layer) for node in located(nodes)][4:8] == [
        ("norm", 0), ("mlp", 0), ("norm", 1), ("norm", 1)
    ]  # fmt: skip
    assert located(nodes)[-1].module == "head"
    assert {node.module for node in located(nodes[:-3])} == {None}
    assert op_of("fused_fused_decode1_fused_NT_matmul5_cast2") == "matmul"


PIECES = st.sampled_from(
    [
        graph("GET_ROWS", "RMS_NORM"),
        "=== GRAPH ===\n",
        "n_nodes = 7\n",
        NODE.format(999, "X"),
        "perf_total_per_op_us[ ADD] = 1.000 ms\n",
    ]
)
REPORTS = st.sampled_from([
    "Report from function x:\n", "Name  Duration (us)  Percent  Device  Count  Argument Shapes\n", "a 1.0 1.0 cpu0 1 int[1]\n", "----\n",
    'Sum 1.00 1.0 1\n', '{"calls": []}\n', '{"calls": [{"Name": {}, "Duration (us)": {"microseconds": 1}}]}\n',
])  # fmt: skip


@pytest.mark.parametrize(("importer", "pieces"), [(LlamaCppOps, PIECES), (TvmOps, REPORTS)])
@settings(deadline=None, max_examples=30)  # of a busy machine
@given(data=st.data())
def test_whatever_a_log_holds_it_is_imported_or_refused(importer, pieces, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("ops") / "log"
    path.write_text("".join(data.draw(st.lists(pieces | st.text(max_size=20), max_size=8))))
    try:
        keep = imported(importer(path))
    except DataError as exc:
        assert "expected" in str(exc)  # noqa: PT017 - either is right
    else:
        assert "run.facts" in keep.sources
