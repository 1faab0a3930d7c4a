import importlib
import json
from types import SimpleNamespace

import pytest

from melt_stream.collectors import _nvml_example as example
from melt_stream.collectors.nvml import Nvml
from melt_stream.errors import DeviceError, Transient
from tests.collectors.host_tree import collect, rails


class Library:
    """``pynvml`` without a GPU: the example's functions, some of which are told to fail or to answer otherwise.

    A mock, because no GPU is here; the names that it has are compared with the real package's below.
    """

    def __init__(self, gpus=1, failing=(), **answers):
        self.gpus, self.failing, self.answers, self.calls, self.is_open = gpus, dict(failing), answers, [], 0

    def __getattr__(self, name):
        if not name.startswith("nvml"):
            return getattr(example, name)
        return lambda *args: self._call(name, *args)

    def _call(self, name, *args):
        self.calls.append(name)
        if name in self.failing:
            raise example.NVMLError(self.failing[name])
        if name in self.answers:
            return self.answers[name]
        self.is_open += {"nvmlInit": 1, "nvmlShutdown": -1}.get(name, 0)
        return self.gpus if name == "nvmlDeviceGetCount" else getattr(example, name)(*args)


def fields(*values):
    return [
        SimpleNamespace(
            nvmlReturn=example.NVML_ERROR_NOT_SUPPORTED if value is None else 0,
            value=SimpleNamespace(uiVal=value or 0),
        )
        for value in values
    ]


def by_stream(nvml):
    return {(stream.name, row.get("rail")): row for stream, row in nvml.read()}


NO = example.NVML_ERROR_NOT_SUPPORTED


async def test_each_measure_is_a_stream_of_its_kind(autojump_clock):
    lib = Library(
        gpus=2, nvmlDeviceGetFieldValues=fields(71_500, 70_250), nvmlDeviceGetTotalEnergyConsumption=2**40
    )
    rows = await collect(Nvml(library=lib), 0.3)
    kinds = {
        (r["sensor_of"], r["name"]): (r["kind"], r["window_ns"], r["boundary"]) for r in rows["run.rails"]
    }
    for gpu in ("gpu0", "gpu1"):
        assert kinds.pop(("x.nvml_energy", gpu)) == ("counter", None, "board")
        assert kinds.pop(("x.instant", gpu)) == ("gauge", None, "board")
        assert kinds.pop(("x.average", gpu)) == ("mean", 1e9, "board")
    assert not kinds
    assert {row["energy"] for row in rows["x.nvml_energy"]} == {2**40}
    assert {row["watts"] for row in rows["x.instant"]} == {71.5}
    assert {row["watts"] for row in rows["x.average"]} == {70.25}
    facts = {row["name"]: json.loads(row["value"]) for row in rows["run.facts"]}
    assert facts["gpus"]["gpu1"] == {"name": "Example GPU", "uuid": "GPU-00000001"}
    assert lib.is_open == 0


def test_state_in_its_units(tmp_path):
    (state,) = [row for (name, _), row in by_stream(Nvml(library=Library())).items() if name == "gpu"]
    assert state == {
        "gpu": 0, "utilization": 35, "memory_utilization": 20, "celsius": 54, "sm_clock": 1.8e9, "memory_clock": None,
        "memory_used": 3 << 30, "memory_total": 8 << 30, "held_back": 4,
    }  # fmt: skip


async def test_not_supported_is_absent_never_zero_and_not_asked_again(autojump_clock):
    names = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage")
    lib = Library(failing=dict.fromkeys((*names, "nvmlDeviceGetUtilizationRates"), NO))
    rows = await collect(Nvml(library=lib), 1)
    assert not rails(rows)
    assert set(rows) - {"run.rails"} == {"run.facts", "x.gpu"}
    assert {row["utilization"] for row in rows["x.gpu"]} == {None}
    assert [lib.calls.count(name) for name in names] == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "architecture", "stream"),
    [
        ("NVIDIA GeForce RTX 2080", 6, "instant"),
        ("NVIDIA A100-SXM4-80GB", 7, "instant"),
        ("NVIDIA RTX A3000 Laptop GPU", 7, "average"),
        ("NVIDIA A40", 7, "average"),
        ("NVIDIA H100", 9, "average"),
    ],
)
def test_an_old_drivers_one_number_means_what_its_chip_makes_it(name, architecture, stream):
    lib = Library(
        nvmlDeviceGetFieldValues=fields(None, None), nvmlDeviceGetPowerUsage=50_000, nvmlDeviceGetName=name,
        nvmlDeviceGetArchitecture=architecture,
    )  # fmt: skip
    powers = {key[0]: row["watts"] for key, row in by_stream(Nvml(library=lib)).items() if "watts" in row}
    assert powers == {stream: 50.0}


def test_one_field_of_two_is_kept():
    powers = by_stream(Nvml(library=Library(nvmlDeviceGetFieldValues=fields(None, 40_000))))
    assert ("instant", "gpu0") not in powers
    assert powers[("average", "gpu0")]["watts"] == 40.0


def test_a_hiccup_may_pass_and_a_lost_gpu_does_not():
    lib = Library(failing={"nvmlDeviceGetTemperature": 999})
    nvml = Nvml(library=lib)
    with pytest.raises(Transient, match=r"gpu0 \(Example GPU\): nvmlDeviceGetTemperature"):
        nvml.read()
    lib.failing = {}
    assert nvml.read()
    lib.failing = {"nvmlDeviceGetTemperature": example.NVML_ERROR_GPU_IS_LOST}
    with pytest.raises(DeviceError) as raised:
        nvml.read()
    assert not isinstance(raised.value, Transient)


def test_doctor_tells_a_missing_package_driver_and_gpu():
    assert "pip install" in Nvml(library="no_such_package").check().cure
    no_driver = Nvml(library=Library(failing={"nvmlInit": 12})).check()
    assert (no_driver.ok, "driver" in no_driver.what) == (False, True)
    empty = Library(gpus=0)
    assert "no GPU" in Nvml(library=empty).check().what
    assert empty.is_open == 0
    lib = Library()
    assert Nvml(library=lib).check().what == "Example GPU: average, gpu, instant, nvml_energy"
    assert lib.is_open == 0


def test_the_real_package_has_every_name_that_is_used():
    pynvml = importlib.import_module("pynvml")
    names = [name for name in vars(example) if name.startswith(("nvml", "NVML"))]
    names += ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetArchitecture"]
    assert [name for name in names if not hasattr(pynvml, name)] == []
    for name in names:
        if isinstance(value := getattr(example, name, None), int):
            assert getattr(pynvml, name) == value
    assert pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED).value == NO


def test_on_a_machine_without_a_driver_the_real_package_says_so():
    health = Nvml().check()
    assert health.ok or "driver" in health.what or "GPU" in health.what
