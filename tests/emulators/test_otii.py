"""The emulated Otii, as Qoitech's own client (PyPI otii-tcp-client) sees it."""

from __future__ import annotations

import pytest
import trio
from otii_tcp_client import otii_client, otii_exception
from otii_tcp_client.otii_client import LicensingMode

from tests.emulators.playing_otii import playing


def connected(place, licensing=LicensingMode.MANUAL):
    return otii_client.OtiiClient().connect(
        host=place["host"], port=place["tcp_port"], try_for_seconds=2, licensing=licensing
    )


def measure(place, samples, licensing=LicensingMode.MANUAL):
    """What its basic_measurement example does, and a look at each kind of channel."""
    with connected(place, licensing) as otii:
        (device,) = otii.get_devices(timeout=1)
        device.add_to_project()
        device.set_main_voltage(3.7)
        device.set_exp_voltage(3.3)
        device.set_max_current(0.5)
        device.enable_exp_port(True)
        device.set_uart_baudrate(115200)
        device.enable_uart(True)
        for channel in ("mc", "mv", "i1", "i2", "rx"):
            device.enable_channel(channel, True)
        project = otii.get_active_project()
        device.set_main(True)
        project.start_recording()
        recording = project.get_last_recording()
        while recording.get_channel_data_count(device.id, "mc") < samples:
            assert recording.is_running()
        project.stop_recording()
        info = recording.get_channel_info(device.id, "mc")
        found = {
            "device": (
                device.type,
                device.get_version()["fw_version"],
                device.get_main_voltage(),
                device.get_max_current(),
            ),
            "running": recording.is_running(),
            "info": info,
            "statistics": recording.get_channel_statistics(device.id, "mc", info["from"], info["to"]),
            "volts_at": recording.get_channel_data_index(device.id, "mv", 0.1),
            "value": device.get_value("mv"),
        }
        for channel in ("mc", "mv", "i1", "i2", "rx"):
            count = recording.get_channel_data_count(device.id, channel)
            found[channel] = recording.get_channel_data(device.id, channel, 0, count) if count else None
        return found


async def test_qoitechs_client_reads_voltage_currents_inputs_lines_and_statistics():
    gpi = [(0.0, 1, True), (0.1, 1, False), (0.15, 2, True)]
    uart = [(0.2, "booting"), (0.25, "ready")]
    lines = {"gpi": [(at + 0.1, *rest) for at, *rest in gpi], "uart": [(at + 0.1, text) for at, text in uart]}
    async with playing(progress=True, **lines) as (server, place):
        found = await trio.to_thread.run_sync(measure, place, 4000)
    (recording,) = server.recordings
    began = (recording.began - server.began) / 1e9
    assert found["device"] == ("Arc", "2.1.0", 3.7, 0.5)
    assert not found["running"]
    amps, volts = found["mc"], found["mv"]
    assert (amps["timestamp"], amps["interval"], volts["interval"]) == (0.0, 0.00025, 0.001)
    expected = [0.1 if (began + k * 0.00025) % 0.1 < 0.05 else 0.5 for k in range(len(amps["values"]))]
    assert amps["values"] == pytest.approx(expected)
    assert len(expected) >= 4000
    assert abs(len(volts["values"]) - len(expected) / 4) <= 1
    assert set(volts["values"]) == {3.7}
    assert found["value"] == 3.7
    assert found["volts_at"] == 100
    told = found["statistics"]
    assert (told["min"], told["max"]) == (pytest.approx(0.1), pytest.approx(0.5))
    assert told["average"] == pytest.approx(sum(expected) / len(expected))
    assert told["energy"] == pytest.approx(3.7 * sum(expected) * 0.00025)
    assert found["info"]["to"] == pytest.approx(len(expected) * 0.00025)
    assert [value["value"] for value in found["i1"]["values"]][-1:] == [False]
    assert found["i2"]["values"] == [{"timestamp": pytest.approx(0.25 - began), "value": True}]
    assert [value["value"] for value in found["rx"]["values"]] == ["booting", "ready"]


async def test_qoitechs_client_sees_a_hole_as_a_later_time():
    async with playing("skip@0.2:40", load="constant:1W") as (_, place):

        def look():
            with connected(place) as otii:
                (device,) = otii.get_devices(timeout=1)
                device.enable_channel("mc", True)
                project = otii.get_active_project()
                project.start_recording()
                recording = project.get_last_recording()
                while (count := recording.get_channel_data_count(device.id, "mc")) < 2000:
                    pass
                last = recording.get_channel_data(device.id, "mc", count - 1, 1)["timestamp"]
                return count, last

        count, last = await trio.to_thread.run_sync(look)
    assert last == pytest.approx((count - 1 + 40) * 0.00025)


async def test_qoitechs_client_reserves_a_licence_and_is_refused_without():
    async with playing(licence="free") as (server, place):
        with pytest.raises(otii_exception.Otii_Exception) as refused:
            await trio.to_thread.run_sync(measure, place, 1)
        assert refused.value.type == "No license"
        await trio.to_thread.run_sync(measure, place, 1, LicensingMode.AUTO)
        assert server.heard.count("otii_reserve_license") == server.heard.count("otii_return_license") == 1


def twice(project):
    project.start_recording()
    project.start_recording()


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda device, _: device.set_main_voltage(5.5), "Invalid key value"),
        (lambda device, _: device.get_range(), "Invalid command"),
        (lambda _, project: project.stop_recording(), "Command failure"),
        (lambda _, project: twice(project), "Command failure"),
    ],
)
async def test_qoitechs_client_is_refused_in_the_servers_words(ask, code):
    def trying(place):
        with connected(place) as otii:
            (device,) = otii.get_devices(timeout=1)
            with pytest.raises(otii_exception.Otii_Exception) as refused:
                ask(device, otii.get_active_project())
            return refused.value

    async with playing() as (_, place):
        refusal = await trio.to_thread.run_sync(trying, place)
    assert refusal.type == code
    assert str(refusal.message)
