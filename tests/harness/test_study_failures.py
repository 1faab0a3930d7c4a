"""Why a run failed: what the evidence says, and what real failures leave as evidence."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import trio

from melt_stream.devices import Gone
from melt_stream.ending import TimedOut
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.harness.study.failure import Evidence, failure
from tests.emulators.playing_android import ADBS, playing, serving
from tests.harness.studies import ask, made, shell, study

ENDED = "the llama.cpp server ended by itself, {}; its last lines:\n  {}"


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (Evidence(ConfigError("prompts: expected a list")), "configuration"),
        (Evidence(ConfigError("gone"), unreachable=("phone",)), "configuration"),
        (Evidence(None, 127), "configuration"),
        (Evidence(None, 126), "configuration"),
        (Evidence(DeviceError("x"), rebooted=("phone",)), "reboot"),
        (Evidence(TimedOut("expected its end within 5 s"), rebooted=("phone",)), "reboot"),
        (Evidence(DeviceError("x"), unreachable=("phone",)), "device_gone"),
        (Evidence(TimedOut("expected its end within 5 s"), unreachable=("phone",)), "device_gone"),
        (Evidence(Gone("the link ended")), "device_gone"),
        (Evidence(TimedOut("expected its end within 5 s"), 137), "timeout"),
        (Evidence(TimeoutError()), "timeout"),
        (Evidence(DeviceError(ENDED.format("exit status 1", "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 3 MiB on device 0: cudaMalloc failed: out of memory"))), "oom"),
        (Evidence(DeviceError(ENDED.format("killed by SIGABRT", "terminate called after throwing an instance of 'std::bad_alloc'"))), "oom"),
        (Evidence(DeviceError(ENDED.format("exit status 1", "ggml_vulkan: Device memory allocation failed: vk::Device::allocateMemory: ErrorOutOfDeviceMemory"))), "oom"),
        (Evidence(DeviceError(ENDED.format("exit status 1", "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"))), "oom"),
        (Evidence(DeviceError(ENDED.format("killed by SIGKILL", "srv  load_model: loading model")), oom_kills=1), "oom"),
        (Evidence(DeviceError(ENDED.format("killed by SIGKILL", "srv  load_model: loading model"))), "oom"),
        (Evidence(DeviceError(ENDED.format("killed by SIGKILL", "srv  load_model: loading model")), oom_kills=0), "crash"),
        (Evidence(None, 137, oom_kills=2), "oom"),
        (Evidence(None, 137, oom_kills=0), "crash"),
        (Evidence(MemoryError()), "oom"),
        (Evidence(DeviceError(ENDED.format("killed by SIGSEGV", "it wrote nothing")), oom_kills=3), "crash"),
        (Evidence(None, 139), "crash"),
        (Evidence(None, 1), "crash"),
        (Evidence(DeviceError("the server does not answer any more (ConnectError), after: HTTP 500")), "crash"),
        (Evidence(Transient("no sample for 5 s")), "other"),
        (Evidence(DeviceError("expected a first row of every collector within 30 s, got none of 'rapl'")), "other"),
        (Evidence(), "other"),
    ],
)  # fmt: skip
def test_the_surest_evidence_says_why(seen, kind):
    assert failure(seen) == kind


def test_failures_are_recorded_and_told_apart_and_the_study_goes_on(tmp_path):
    """Every run fails in a way of its own, and the last one is fine."""
    one = study(
        {
            "timeout_s": 2.0,
            "axes": {
                "how": {
                    "crashes": shell("exit 3"),
                    "killed": shell("kill -9 $$"),
                    "hangs": shell("exec sleep 600"),
                    "lacks": {"workloads.command.arguments": ["no-such-program-anywhere"]},
                    "is_badly_set_up": {
                        "study.before.mode": {"run": ["sh", "-c", "echo bad mode >&2; exit 4"]}
                    },
                    "dies": {
                        "workloads.command.arguments": [sys.executable, "-c", "import os; os.abort()"],
                    },
                    "is_away": {**shell("exit 1"), "device.phone": {"adb": "127.0.0.1:1", "port": 1}},
                    "works": {},
                }
            },
        }
    )
    assert [outcome for *_, outcome in made(one, tmp_path)] == [*["failed"] * 7, "done"]
    assert ask(tmp_path, "SELECT points->>'how', state, failure FROM cells ORDER BY last_run") == [
        ("crashes", "failed", "crash"), ("killed", "failed", "crash"), ("hangs", "failed", "timeout"),
        ("lacks", "failed", "configuration"), ("is_badly_set_up", "failed", "other"), ("dies", "failed", "crash"),
        ("is_away", "failed", "device_gone"), ("works", "done", None),
    ]  # fmt: skip
    [(error,)] = ask(tmp_path, "SELECT error FROM runs WHERE failure = 'other'")
    assert "before mode: expected 0" in error
    assert "got 4: bad mode" in error


def test_a_failed_run_is_tried_again_at_once_and_later_only_when_asked(tmp_path):
    flag = tmp_path / "flag"
    table = {
        "retries": 1, "repeat": 2,
        "axes": {"how": {"flaky": shell(f"test -e {flag} || {{ touch {flag}; exit 1; }}"), "broken": shell("exit 1")}},
    }  # fmt: skip
    archive = tmp_path / "archive"
    assert made(study(table), archive) == [
        ("how=flaky", 1, False, "failed"), ("how=flaky", 1, False, "done"),
        ("how=broken", 1, False, "failed"), ("how=broken", 1, False, "failed"),
        ("how=flaky", 2, False, "done"),
        ("how=broken", 2, False, "failed"), ("how=broken", 2, False, "failed"),
    ]  # fmt: skip
    assert made(study(table), archive) == []
    again = made(study(table), archive, retry_failed=True)
    assert again == [("how=broken", n, False, "failed") for n in (1, 1, 2, 2)]
    attempts = "SELECT repetition, list(attempt ORDER BY run) FROM runs WHERE outcome = 'failed' GROUP BY ALL ORDER BY 1"
    assert ask(archive, f"{attempts}") == [(1, [1, 1, 2, 3, 4]), (2, [1, 2, 3, 4])]


def test_what_fails_for_good_is_not_tried_again_and_the_cells_other_runs_are_skipped(tmp_path):
    table = {
        "retries": 3,
        "repeat": 3,
        "axes": {"how": {"lacks": {"workloads.command.arguments": ["no-such-thing"]}, "works": {}}},
    }
    told = made(study(table), tmp_path)
    assert [run for run in told if run[0] == "how=lacks"] == [("how=lacks", 1, False, "failed")]
    assert [run[1] for run in told if run[0] == "how=works"] == [1, 2, 3]


def test_what_cannot_be_planned_any_more_is_a_failed_run(tmp_path, monkeypatch):
    """A plug-in of the user's that needs a file, which goes after the study has been checked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "needy_workload.py").write_text("""
from dataclasses import dataclass
from pathlib import Path
@dataclass
class Needy:
    file: str
    def __post_init__(self):
        if not Path(self.file).exists():
            raise ValueError(f"expected {self.file}, got none")
    async def collect(self, out):
        pass
""")
    (tmp_path / "model").touch()
    needy = {"remove": ["workloads"], "workloads.needy": {"kind": "needy_workload.Needy", "file": "model"}}
    one = study({"axes": {"what": {"needy": needy, "plain": {}}}})
    (tmp_path / "model").unlink()
    assert [run[3] for run in made(one, tmp_path / "archive")] == ["failed", "done"]
    [(kind, error)] = ask(tmp_path / "archive", "SELECT failure, error FROM runs WHERE outcome = 'failed'")
    assert kind == "configuration"
    assert "expected model, got none" in error


async def test_a_phone_that_boots_during_a_run_is_told_by_its_boot_id(tmp_path):
    with serving(ADBS[0]) as adb:
        async with playing() as (_, place):
            serial = place["serial"]
            reboot = f"{adb.binary} -P {adb.port} -s {serial} reboot; exit 1"
            one = study(
                {"axes": {"how": {"booting": shell(reboot)}}},
                device={"phone": {"adb": serial, "port": adb.port}},
            )
            with trio.fail_after(60):
                told = await trio.to_thread.run_sync(partial(made, one, tmp_path))
    assert told == [("how=booting", 1, False, "failed")]
    assert ask(tmp_path, "SELECT failure FROM runs") == [("reboot",)]
