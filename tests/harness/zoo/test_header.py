import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melt_stream.errors import DataError
from melt_stream.harness.zoo import header
from tests.harness.zoo.parts import melt, write_gguf


def test_widths_bits_and_kv_bytes_of_a_made_file(tmp_path):
    found, tensors = header.read([write_gguf(tmp_path / "m.gguf")])
    assert (found.architecture, found.title, found.layers, found.width) == ("llama", "Tiny", 2, 64)
    assert (found.heads, found.kv_heads, found.context, found.vocabulary) == (4, 2, 128, 32)
    assert found.quantisation == "F16"
    assert found.parameters == 32 * 64 + 64
    assert found.weight_bytes == 32 * 64 * 2 + 64 * 4
    assert found.bits_per_weight == 8 * found.weight_bytes / found.parameters
    assert found.tensors == {"F32": {"tensors": 1, "bytes": 256}, "F16": {"tensors": 1, "bytes": 4096}}
    assert [(t.name, t.shape) for t in tensors] == [
        ("token_embd.weight", (64, 32)),
        ("output_norm.weight", (64,)),
    ]
    # 2 layers x 2 heads x (16 + 16) elements; Q8_0 has 34 bytes for 32 of them
    assert found.kv_bytes_per_token is not None
    assert (found.kv_bytes_per_token["F16"], found.kv_bytes_per_token["Q8_0"]) == (256, 136)
    assert found.sliding_window is None


def test_key_lengths_that_differ_from_the_width_and_heads_of_each_layer(tmp_path):
    path = write_gguf(
        tmp_path / "m.gguf", kv_heads=[2, 1], attention__key_length=24, attention__value_length=8, attention__sliding_window=512,
    )  # fmt: skip
    found, _ = header.read([path])
    assert found.kv_heads == [2, 1]
    assert found.kv_bytes_per_token is not None
    assert found.kv_bytes_per_token["F16"] == (2 + 1) * (24 + 8) * 2
    assert found.sliding_window == 512


def test_parts_of_a_split_model_are_counted_together(tmp_path):
    one, two = write_gguf(tmp_path / "a.gguf"), write_gguf(tmp_path / "b.gguf")
    assert header.read([one, two])[0].parameters == 2 * header.read([one])[0].parameters


def test_info_of_a_file_as_json(tmp_path):
    done = melt("zoo", "info", write_gguf(tmp_path / "m.gguf"), "--json")
    assert json.loads(done.stdout)["kv_bytes_per_token"]["F32"] == 512


HEAD = b"GGUF" + struct.pack("<I", 3)
TEXT = struct.pack("<Q", 1) + b"k"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "expected a GGUF file"),
        (b"PK\3\4" + b"\0" * 40, "expected a GGUF file"),
        (HEAD + struct.pack("<QQ", 1 << 60, 1), "expected at most 65536 tensors"),
        (HEAD + struct.pack("<QQ", 1, 1 << 60), "expected at most 65536 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 77, 1, 1), "expected a GGUF file's header"),
        (HEAD + struct.pack("<QQ", 1, 1), "the file's end instead of 1 values at byte 24"),
        (HEAD + struct.pack("<QQ", 0, 0), "expected a GGUF model with an architecture"),
        # a text of 2^62 bytes; an array of 2^40 numbers; a type that is none
        (HEAD + struct.pack("<QQ", 1, 1) + struct.pack("<Q", 1 << 62), "expected a GGUF file's header"),
        (
            HEAD + struct.pack("<QQ", 1, 1) + TEXT + struct.pack("<IIQ", 9, 4, 1 << 40),
            "expected a GGUF file's header",
        ),
        (HEAD + struct.pack("<QQ", 1, 1) + TEXT + struct.pack("<I", 99), "expected a GGUF file's header"),
    ],
)
def test_a_hostile_file_is_a_data_error(tmp_path, data, says):
    (path := tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(DataError, match=says):
        header.read([path])


def test_a_sparse_file_that_would_fill_the_memory_is_a_data_error(tmp_path, monkeypatch):
    path = tmp_path / "m.gguf"
    # an array of 2^33 numbers that the file has room for: each costs the library an object
    path.write_bytes(HEAD + struct.pack("<QQ", 1, 1) + TEXT + struct.pack("<IIQ", 9, 0, 1 << 33))
    with path.open("r+b") as file:
        file.truncate(1 << 34)
    limit = (
        "import melt_stream.harness.zoo._header_child as c, sys; c.MEMORY = 300 << 20; c.main(sys.argv[1])"
    )
    monkeypatch.setattr(header, "_COMMAND", ("-c", limit))
    with pytest.raises(DataError, match=r"MemoryError|exit status"):
        header.read([path])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 700), byte=st.integers(0, 255), cut=st.integers(0, 5000))
def test_a_damaged_file_is_read_or_a_data_error(tmp_path, at, byte, cut):
    data = bytearray(write_gguf(tmp_path / "good.gguf").read_bytes())
    data[at] = byte
    (path := tmp_path / "m.gguf").write_bytes(data[: len(data) - cut])
    try:
        found, _ = header.read([path])
    except DataError:
        return
    assert found.parameters >= 0


def test_no_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="expected a readable file"):
        header.read([tmp_path / "none.gguf"])
