"""``melt-stream devices`` in front of real adb servers and a real sshd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import trio

from melt_stream.cli._app import run as cli
from melt_stream.emulators.jetson import Jetson
from tests.emulators.board import board, needed
from tests.emulators.playing_android import WHEELS, playing, serving


def ssh_entry(place):
    return (
        f'ssh = "{place["user"]}@{place["host"]}:{place["tcp_port"]}"\nconfig = []\nidentity = "{place["identity"]}"\n'
        f'known_hosts = "{place["known_hosts"]}"\n'
    )


@pytest.fixture
def no_server(monkeypatch):
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")


@needed
async def test_phones_and_the_devices_of_a_recipe_are_listed_with_what_they_are(tmp_path, capsys):
    jetson = Jetson(offset_s=2.0)
    with serving(WHEELS) as server, trio.fail_after(90):
        async with playing() as (_, phone), playing() as (_, other), board(jetson) as where:
            await server("connect", other["serial"])
            (tmp_path / "recipe.toml").write_text(
                f'[device.phone]\nadb = "{phone["serial"]}"\nport = {server.port}\n'
                f'[device.lost]\nadb = "nobody"\nport = {server.port}\n'
                f"[device.orin]\n{ssh_entry(where)}[device.stranger]\n{ssh_entry(where)}".replace(
                    where["known_hosts"], "/dev/null"
                ).replace("/dev/null", where["known_hosts"], 1)
                + '[device.own]\nlocal = "/bin/sh"\n'
            )
            ask = ("devices", str(tmp_path / "recipe.toml"))
            assert (
                await trio.to_thread.run_sync(cli, (*ask, "--json")) == 1
            )  # lost and stranger are not there
            found = {one["device"]: one for one in json.loads(capsys.readouterr().out)["devices"]}
            await trio.to_thread.run_sync(cli, ask)
            shown = capsys.readouterr().out
    assert {name: one["state"] for name, one in found.items()} == {
        "phone": "there", other["serial"]: "there", "lost": "Absent", "orin": "there", "stranger": "HostKeyUnknown",
        "own": "there",
    }  # fmt: skip
    assert found["phone"]["identity"]["model"] == "melt_stream Emulated"
    assert found["phone"]["identity"]["os"] == "Android 14 (emulated)"
    if os.geteuid() == 0:  # else their files are not where a phone and a board have them
        assert "battery" in found["phone"]["sensors"]
        assert "VDD_GPU_SOC" in found["orin"]["sensors"]["ina3221"]
    assert abs(found["orin"]["ahead_s"] - 2.0) <= found["orin"]["ahead_bound_s"] + 0.01
    assert abs(found["own"]["ahead_s"]) <= found["own"]["ahead_bound_s"]
    assert "ssh-keyscan" in found["stranger"]["cure"]
    assert "adb devices -l" in found["lost"]["cure"]
    assert "melt_stream Emulated" in shown
    assert "HostKeyUnknown" in shown


def test_without_an_adb_server_it_says_what_to_try(no_server, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text('[device.own]\nlocal = "/bin/sh"\n')
    assert cli(("devices", str(tmp_path / "recipe.toml"))) == 0
    said = capsys.readouterr()
    assert "own" in said.out
    assert "no phones: adb: expected an adb server at 127.0.0.1:1" in said.err
    assert "try: adb start-server" in said.err
    assert cli(("devices", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["devices"] == []


async def test_who_comes_and_goes_is_told(tmp_path):
    with serving(WHEELS) as server, trio.fail_after(60):
        environment = os.environ | {"ANDROID_ADB_SERVER_PORT": str(server.port)}
        (tmp_path / "recipe.toml").write_text('[device.own]\nlocal = "/bin/sh"\n')
        watch = await trio.lowlevel.open_process(
            [sys.executable, "-m", "melt_stream", "devices", str(tmp_path / "recipe.toml"), "--watch", "--json"],
            stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip
        told, rest = [], b""

        async def until(**wanted):
            nonlocal rest
            while not any(wanted.items() <= one.items() for one in told):
                data = await watch.stdout.receive_some()
                assert data, told
                *lines, rest = (rest + data).split(b"\n")
                told.extend(json.loads(line) for line in lines)

        try:
            await until(device="own", state="there")
            async with playing() as (_, place):
                await server("connect", place["serial"])
                await until(device=place["serial"], link="adb", state="there")
                await server("disconnect", place["serial"])
                await until(device=place["serial"], state="absent")
            watch.send_signal(signal.SIGINT)
            assert await watch.wait() == 0
        finally:
            watch.kill()
            await watch.wait()
            await watch.stdout.aclose()
