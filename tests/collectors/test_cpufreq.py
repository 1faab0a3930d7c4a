import pytest

from melt_stream.collectors.cpufreq import Cpufreq
from melt_stream.errors import Transient
from tests.collectors.host_tree import plant, spoil

CPU = "sys/devices/system/cpu"


def test_a_row_for_each_policy_in_hertz(tmp_path):
    rows = list(Cpufreq(root=plant(tmp_path, Cpufreq.example()["tree"])).read())
    assert [row["cpu"] for row in rows] == [0, 4]
    assert rows[0] == {
        "cpu": 0, "cpus": "0 1 2 3", "frequency": 1.804e9, "limit": 1.8048e9, "governor": "schedutil"
    }  # fmt: skip


def test_old_kernels_have_a_folder_for_each_cpu(tmp_path):
    root = plant(tmp_path, {f"{CPU}/cpu{i}/cpufreq/scaling_cur_freq": "800000" for i in (0, 1, 10)})
    rows = list(Cpufreq(root=root).read())
    assert [row["cpu"] for row in rows] == [0, 1, 10]
    assert rows[0]["governor"] is None


def test_a_governor_that_changes_is_seen_and_an_unreadable_frequency_is_unknown(tmp_path):
    sensor = Cpufreq(root=plant(tmp_path, Cpufreq.example()["tree"]))
    list(sensor.read())
    plant(tmp_path, {f"{CPU}/cpufreq/policy4/scaling_governor": "performance"})
    spoil(tmp_path, f"{CPU}/cpufreq/policy0/scaling_cur_freq")
    little, big = sensor.read()
    assert little["frequency"] is None
    assert big["governor"] == "performance"
    spoil(tmp_path, f"{CPU}/cpufreq/policy4/scaling_cur_freq")
    with pytest.raises(Transient, match="scaling_cur_freq"):
        list(sensor.read())


def test_doctor_says_that_there_is_none(tmp_path):
    assert "no frequency policy" in Cpufreq(root=str(tmp_path)).check().what
