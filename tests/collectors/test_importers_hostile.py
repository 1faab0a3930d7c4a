"""Whatever bytes an importer meets, it imports them or says where they are wrong."""

import io
import os
import random
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trio

from melt_stream.collectors.energyrunner import EnergyRunner
from melt_stream.collectors.jtop_import import JtopImport
from melt_stream.collectors.llm_profiler import LlmProfiler
from melt_stream.collectors.melt_app_import import MeltAppImport
from melt_stream.collectors.mlperf_power import MlperfPower
from melt_stream.collectors.monsoon_import import MonsoonImport
from melt_stream.collectors.otii_import import OtiiImport
from melt_stream.collectors.ppk2_import import Ppk2Import
from melt_stream.collectors.tegrastats_import import TegrastatsImport
from melt_stream.errors import ConfigError, DataError
from melt_stream.outlet import Hub
from tests.collectors.written_results import LOG, full, write_results, write_trace

JUNK = [
    b"\x00",
    b"\xff\xfe",
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 40,
    b'"',
    b"[",
    b"}",
    b",",
    b"\n",
    b"\r\n",
    b"{}",
    b":",
]


def mangle(data: bytes, rng: random.Random) -> bytes:
    """Cut, repeat, drop or replace a piece of ``data``."""
    at = rng.randrange(len(data) + 1)
    to = min(len(data), at + rng.choice([0, 1, 4, 60]))
    match rng.randrange(4):
        case 0:
            return data[:at]
        case 1:
            return data[:to] + data[at:]
        case 2:
            return data[:at] + data[to:]
        case _:
            return data[:at] + rng.choice(JUNK) + data[to:]


def session(folder: Path) -> type[EnergyRunner]:
    write_trace(folder, np.linspace(10, 50, 600), 100.0)
    write_results(folder, [(2, 1.1, 4000.0, 150), (4, 3.63, 4000.0, 150)])
    (folder / "log.txt").write_text(LOG)
    return EnergyRunner


def result(folder: Path) -> type[MlperfPower]:
    full(folder)
    (folder / "power" / "ptd_logs.txt").write_text("x: Go with mark 's_run_1'\nx: Avg watts 1.0, valid 3\n")
    return MlperfPower


@pytest.mark.parametrize("write", [session, result])
async def test_mangled_files_are_imported_or_refused_with_their_place(tmp_path, write):
    rng = random.Random(20261122)
    importer = write(tmp_path / "good")
    names = [path.relative_to(tmp_path / "good") for path in (tmp_path / "good").rglob("*") if path.is_file()]
    refusals, imported = [], 0
    for _ in range(60):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        name = rng.choice(sorted(names))
        (tmp_path / "bad" / name).write_bytes(mangle((tmp_path / "good" / name).read_bytes(), rng))
        hub = Hub(now=lambda: 0)
        try:
            await importer(path=tmp_path / "bad").collect(hub.outlet("x"))
        except (DataError, ConfigError) as exc:
            refusals.append(str(exc))
        else:
            hub.take()
            imported += 1
    assert min(len(refusals), imported) > 5
    assert [message for message in refusals if "expected" not in message] == []


def of_example(cls):
    return "\n".join(cls.example()["tree"].values()).encode()


def saved_session() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        frames = b"".join(struct.pack("<fH", k / 7, 0x5555) for k in range(600))
        archive.writestr("session.raw", frames)
        archive.writestr("metadata.json", '{"metadata": {"samplesPerSecond": 100000, "startSystemTime": 1}}')
    return file.getvalue()


@pytest.mark.parametrize(
    ("importer", "name", "good"),
    [
        (MeltAppImport, "a.json", MeltAppImport.example()["tree"]["measurements_iter0.json"].encode()),
        (MonsoonImport, "a.csv", of_example(MonsoonImport)),
        (OtiiImport, "a.csv", of_example(OtiiImport)),
        (Ppk2Import, "a.csv", of_example(Ppk2Import)),
        (Ppk2Import, "a.ppk2", saved_session()),
        (TegrastatsImport, "a.log", of_example(TegrastatsImport)),
    ],
)
async def test_mangled_traces_are_imported_or_refused_with_their_place(tmp_path, importer, name, good):
    rng, refusals, imported = random.Random(20261124), [], 0
    for _ in range(400):
        data = good
        for _ in range(rng.randint(1, 3)):
            data = mangle(data, rng)
        (tmp_path / name).write_bytes(data)
        hub = Hub(now=lambda: 0)
        try:
            await importer(path=tmp_path / name).collect(hub.outlet("x"))
        except DataError as exc:
            refusals.append(str(exc))
        else:
            hub.take()
            imported += 1
    assert imported > 5
    assert len(refusals) > 1  # a line that is none of tegrastats' is left out
    assert [message for message in refusals if name not in message or "expected" not in message] == []


@pytest.mark.parametrize(
    "importer",
    [JtopImport, LlmProfiler, MeltAppImport, MonsoonImport, OtiiImport, Ppk2Import, TegrastatsImport],
)
async def test_what_is_no_regular_file_is_not_waited_for(tmp_path, importer):
    os.mkfifo(tmp_path / "pipe")
    with trio.fail_after(5), pytest.raises(DataError, match="not a regular file"):
        await importer(path=tmp_path / "pipe").collect(Hub(now=lambda: 0).outlet("x"))
