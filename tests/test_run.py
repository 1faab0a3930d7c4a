"""Run folders: ids, states, locks, and what may be done to them."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from melt_stream.environment import host_facts, versions
from melt_stream.errors import ConfigError, DataError
from melt_stream.lock import Locked, locked
from melt_stream.manifest import Manifest
from melt_stream.run import Run, create, find, runs

HOLDER = """
import sys; from pathlib import Path; from melt_stream.run import create
folder = create(Path(sys.argv[1]), recipe={}); print(folder.id, flush=True); sys.stdin.read()
"""


def finished(archive, **kwargs):
    folder = create(archive, recipe={}, **kwargs)
    folder.finish("done")
    return Run(folder.path)


def test_ids_sort_by_time_and_never_meet(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create(tmp_path, recipe={}), range(40)))
    ids = [folder.id for folder in made]
    assert len(set(ids)) == 40
    assert all(re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{4}", name) for name in ids)
    assert [run.id for run in runs(tmp_path)] == sorted(ids)
    for folder in made:
        folder.close()


def test_states_follow_manifest_and_lock(tmp_path):
    folder = create(tmp_path, recipe={})
    assert Run(folder.path).state == "recording"
    folder.close()
    assert Run(folder.path).state == "interrupted"
    assert finished(tmp_path).state == "finished"


def test_the_lock_goes_with_its_process(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    run = Run(tmp_path / child.stdout.readline().strip())
    assert run.state == "recording"
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert run.state == "interrupted"


def test_a_manifest_says_how_it_ended_and_where_it_was_made(tmp_path):
    folder = create(
        tmp_path, recipe={"seconds": 3}, name="first", tags=["a"], devices={"phone": {"kind": "adb"}}
    )
    folder.finish("a collector failed", error=ValueError("no"), signal=15, exit_status=3)
    manifest = Run(folder.path).manifest
    assert manifest.exit == {
        "reason": "a collector failed",
        "error": "ValueError: no",
        "signal": 15,
        "status": 3,
    }
    assert (manifest.recipe, manifest.name, manifest.tags) == ({"seconds": 3}, "first", ["a"])
    assert manifest.devices == {"phone": {"kind": "adb"}}
    assert manifest.host["kernel"].startswith("Linux ")
    assert manifest.versions["pyarrow"]
    assert manifest.stop_ns > manifest.start_ns > 0


def test_an_imported_run_counts_from_zero(tmp_path):
    folder = create(tmp_path, recipe={}, imported="energyrunner", start_utc_ns=1_600_000_000 * 10**9)
    folder.finish("done")
    manifest = Run(folder.path).manifest
    assert (manifest.start_ns, manifest.stop_ns, manifest.start_utc_ns) == (0, None, 1_600_000_000 * 10**9)


def test_a_manifest_survives_a_round_trip_and_refuses_the_future(tmp_path):
    run = finished(tmp_path)
    path = run.path / "manifest.json"
    said = json.loads(path.read_text())
    assert Manifest.load(run.path) == run.manifest
    path.write_text(json.dumps(said | {"format": 99}))
    with pytest.raises(DataError, match="format 99, newer than 1"):
        Run(run.path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: expected a melt_stream manifest"):
        Run(run.path)
    stored = {"file": "a.parquet", "rows": 1, "columns": [["tick", "BIGINT", "ns"]]}
    path.write_text(json.dumps(said | {"streams": {"a.b": stored}}))
    with pytest.raises(
        DataError, match=r"expected a file's name and columns as text, got 'a.parquet' and \[\["
    ):
        Run(run.path)


def test_find_takes_an_id_a_unique_prefix_a_path_or_last(tmp_path):
    first, last = finished(tmp_path), finished(tmp_path)
    assert find(tmp_path, first.id).id == first.id
    assert find(tmp_path, first.id[:-1]).id == first.id
    assert find(tmp_path, str(first.path)).id == first.id
    assert find(tmp_path, "last").id == last.id
    with pytest.raises(ConfigError, match=rf"expected one run called '2'.*got {first.id}, {last.id}"):
        find(tmp_path, "2")
    with pytest.raises(ConfigError, match="none of 2 runs"):
        find(tmp_path, "nothing")
    with pytest.raises(ConfigError, match="none of 0 runs"):
        find(tmp_path / "no archive", "last")


def test_tags_notes_and_removal(tmp_path):
    run = finished(tmp_path)
    run.tag("b", "a")
    run.tag("b", remove=True)
    run.note("good")
    manifest = Run(run.path).manifest
    assert (manifest.tags, manifest.note) == (["a"], "good")
    run.remove()
    assert runs(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_recorded_is_not_touched(tmp_path):
    folder = create(tmp_path, recipe={})
    run = Run(folder.path)
    for change in (lambda: run.tag("a"), run.remove, lambda: run.note("x")):
        with pytest.raises(Locked, match="being recorded or packed"):
            change()
    folder.close()
    with locked(run.path):
        assert run.state == "recording"


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a run's folder, found no manifest\.json"):
        Run(tmp_path)


def test_an_archive_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="choose another with --archive"):
        create(tmp_path / "file" / "archive", recipe={})


def test_host_facts_leave_out_what_cannot_be_read(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n")
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    governor.mkdir(parents=True)
    (governor / "scaling_governor").write_text("powersave\n")
    facts = host_facts(str(tmp_path))
    assert facts["cpu"] == "Some CPU @ 3 GHz"
    assert facts["governors"] == ["powersave"]
    assert "memory_kb" not in facts
    assert "boot_id" not in facts


def test_versions_are_those_of_what_is_required():
    found = versions()
    assert found["duckdb"].split(".")[0].isdigit()
    assert versions("no-such-distribution") == {}
