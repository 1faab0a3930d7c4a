import json
import os
import signal
import stat
import subprocess
import sys

import psutil
import pytest

from melt_stream.analysis.archive import connect
from melt_stream.errors import ConfigError, DataError, DeviceError
from melt_stream.harness.zoo import quantise as quantising
from melt_stream.harness.zoo import registry, running
from melt_stream.harness.zoo.header import Tensor
from melt_stream.harness.zoo.pull import pull
from melt_stream.harness.zoo.quantise import quantise
from melt_stream.harness.zoo.references import ensure
from melt_stream.harness.zoo.store import Store
from tests.harness.zoo.parts import eventually, melt, started, write_gguf

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A zoo with the real SmolLM2 in it."""
    store = Store(tmp_path_factory.mktemp("zoo"))
    pull(store, registry.read()[MODEL])
    return store


@pytest.fixture
def tiny(tmp_path):
    """A zoo with a made model in F16, whose rows have 64 elements."""
    store = Store(tmp_path / "zoo")
    text = '[tiny]\nfamily = "T"\nparameters = 10\ncontext = 20\nlicence = {{ name = "MIT" }}\nsource = {{ path = "{}" }}'
    pull(store, registry.parse(text.format(write_gguf(tmp_path / "tiny.gguf")), "test")["tiny"])
    return store


def script(path, text):
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.model
@pytest.mark.parametrize(
    ("to", "types", "bits", "said"),
    [
        ("Q8_0", {"F32": 61, "Q8_0": 211}, 8.51, None),
        ("Q4_0", {"F32": 61, "Q8_0": 1, "Q4_0": 210}, 5.35, 1),
        ("Q3_K_S", {"F32": 61, "Q8_0": 1, "Q4_0": 180, "Q3_K": 30}, 5.14, 180),
    ],
)
def test_a_real_model_is_quantised_and_its_recipe_says_how(zoo, to, types, bits, said):
    made = quantise(zoo, MODEL, to.lower(), requantise=True, asked="cyllama", threads=1)
    assert made.header is not None
    assert {name: one["tensors"] for name, one in made.header["tensors"].items()} == types
    assert made.quantisation == to
    assert round(made.header["bits_per_weight"], 2) == bits, "as llama.cpp's own log says"
    recipe = made.recipe
    original = zoo.get(MODEL, "original")
    assert recipe["inputs"] == {"SmolLM2-135M-Instruct.Q4_1.gguf": original.sha256}
    assert (recipe["tool"], recipe["operation"], recipe["to"]) == ("cyllama", "quantise", to)
    assert recipe["seconds"] > 0
    assert recipe["peak_memory"] > original.bytes, "it read the whole file"
    assert "made of Q4_1, not of full precision" in recipe["loss"]
    assert recipe["fallbacks"]["tool_said"] == said
    # SmolLM2's rows of 576 are no multiple of 256: all but the 30 of 1536 fall back in a k-quant
    fell = {"Q8_0": 1, "Q4_0": 180} if to == "Q3_K_S" else {}
    assert recipe["fallbacks"] == {"tensors": sum(fell.values()), "of": 211, "types": fell, "tool_said": said}
    again = quantise(zoo, MODEL, to, requantise=True)
    assert again.recipe["made_utc_ns"] == recipe["made_utc_ns"], "made once"


@pytest.mark.model
def test_a_quantised_model_answers_and_the_run_says_which_it_was(zoo, tmp_path):
    made = quantise(zoo, MODEL, "Q3_K_S", requantise=True)
    (path := tmp_path / "r.toml").write_text(
        '[collectors.cpu]\n[workloads.llama]\nmodel = "zoo:smollm2-135m/Q3_K_S"\n'
        'prompts = ["The capital of France is"]\nmax_tokens = 8\nkeep_text = true\n'
    )
    archive = tmp_path / "archive"
    done = melt("run", path, "--archive", archive, "--json", MELT_STREAM_ZOO=str(zoo.root))
    assert done.returncode == 0, done.stderr
    query = "SELECT model, variant, quantisation, bits_per_weight, sha256, tool, loss, recipe->>'$.fallbacks.tensors' AS fell FROM models"
    (row,) = connect(archive, query).sql(query).to_arrow_table().to_pylist()
    assert row == {
        "model": "smollm2-135m", "variant": "Q3_K_S", "quantisation": "Q3_K_S", "sha256": made.sha256, "tool": "cyllama",
        "bits_per_weight": made.header["bits_per_weight"], "loss": made.recipe["loss"], "fell": "181",
    }  # fmt: skip
    query = "SELECT text FROM events WHERE kind = 'token' ORDER BY index"
    texts = [text for (text,) in connect(archive, query).sql(query).fetchall()]
    assert len(texts) == 8
    assert "Paris" in "".join(filter(None, texts))
    manifest = json.loads((next(archive.glob("*/manifest.json"))).read_text())
    assert manifest["recipe"]["workloads"]["llama"]["model"] == "zoo:smollm2-135m/Q3_K_S"


@pytest.mark.model
def test_a_study_asks_for_what_it_needs_and_is_told_what_is_lost(zoo):
    said: list[str] = []
    made = ensure(f"zoo:{MODEL}/q4_k_m", store=zoo, say=said.append)
    assert made.quantisation == "Q4_K_M"
    assert said[0] == f"quantising {MODEL} to q4_k_m"
    assert "not of full precision" in said[-1]
    assert ensure(f"zoo:{MODEL}/Q4_1", store=zoo) == zoo.get(MODEL, "original"), "what was pulled has it"
    said.clear()
    assert ensure(f"zoo:{MODEL}/Q4_K_M", store=zoo, say=said.append) == made
    assert said == []


@pytest.mark.model
def test_what_is_quantised_already_needs_to_be_asked_for(zoo):
    with pytest.raises(ConfigError, match=r"got Q4_1 \(Q4_1, Q8_0\); .* ask for it with --requantize"):
        quantise(zoo, MODEL, "Q6_K")
    with pytest.raises(ConfigError, match="--requantize"):
        ensure(f"zoo:{MODEL}/Q6_K", store=zoo, requantise=False)
    done = melt("zoo", "quantize", MODEL, "--to", "Q6_K", MELT_STREAM_ZOO=str(zoo.root))
    assert (done.returncode, "--requantize" in done.stderr) == (2, True)


def test_only_the_hub_needs_leave(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"zoo:qwen3-0\.6b/Q4_0: expected it in the zoo at .*melt-stream zoo pull qwen3-0\.6b",
    ):
        ensure("zoo:qwen3-0.6b/Q4_0", store=store)
    with pytest.raises(ConfigError, match=r"did you mean 'qwen3-0\.6b'"):
        ensure("zoo:qwen3-0.6/Q4_0", store=store)


@pytest.mark.model
def test_two_processes_that_want_one_quantisation_make_it_once(zoo):
    command = ("zoo", "quantize", MODEL, "--to", "Q5_0", "--requantize", "--tool", "cyllama", "--json")
    both = [started(*command, MELT_STREAM_ZOO=str(zoo.root)) for _ in range(2)]
    done = [one.finished() for one in both]
    assert [one.returncode for one in done] == [0, 0], done
    one, other = (json.loads(each.stdout) for each in done)
    assert one == other


@pytest.mark.model
def test_a_process_killed_in_mid_quantise_leaves_nothing(zoo):
    command = (
        "zoo",
        "quantize",
        MODEL,
        "--to",
        "Q4_K_S",
        "--requantize",
        "--tool",
        "cyllama",
        "--threads",
        "1",
    )
    first = started(*command, MELT_STREAM_ZOO=str(zoo.root))
    work = zoo.root / "work"
    eventually(
        lambda: [p for p in work.glob("*/made/*.gguf") if p.stat().st_size], "a file that is being made"
    )
    os.kill(first.process.pid, signal.SIGKILL)
    first.finished()
    assert zoo.get(MODEL, "Q4_K_S") is None
    eventually(lambda: not working_in(work), "the end of what it had started")
    assert quantise(zoo, MODEL, "Q4_K_S", requantise=True).quantisation == "Q4_K_S"
    assert list(work.iterdir()) == []


def working_in(folder):
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        said = " ".join(process.info["cmdline"] or ())
        if str(folder) in said and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_a_tool_that_crashes_is_told_by_its_signal_and_leaves_nothing(tiny, tmp_path):
    binary = script(
        tmp_path / "llama-quantize",
        "import os\nprint('loading')\nopen(os.sys.argv[2], 'w').write('half')\nos.abort()",
    )
    with pytest.raises(
        DeviceError,
        match=r"(?s)llama-quantize: tiny to Q8_0: expected exit status 0, got killed by SIGABRT.*loading",
    ):
        quantise(tiny, "tiny", "Q8_0", asked=str(binary))
    assert tiny.get("tiny", "Q8_0") is None
    assert list((tiny.root / "work").iterdir()) == []
    assert [one.name for one in tiny.artefacts()] == ["tiny"]


def test_a_tool_that_refuses_is_told_with_its_last_words(tiny, tmp_path):
    binary = script(tmp_path / "llama-quantize", "print('no such type')\nraise SystemExit(3)")
    with pytest.raises(DeviceError, match=r"(?s)got exit status 3; its last lines:\s+no such type"):
        quantise(tiny, "tiny", "Q8_0", asked=str(binary))


def test_llama_quantize_is_given_the_arguments_that_it_takes(tiny, tmp_path, monkeypatch):
    # stands in for the binary, which no package has: copies, as what it is told is the question here
    text = "import sys, shutil\nprint('main: build = 4242 (abc123)')\n" + "print('x')\n" * 40
    binary = script(tmp_path / "llama-quantize", text + "shutil.copy(sys.argv[-4], sys.argv[-3])")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    made = quantise(tiny, "tiny", "F16", threads=3)
    assert made.recipe["tool"] == "llama-quantize"
    assert made.recipe["arguments"] == ["{input}", "{output}", "F16", "3"]
    assert made.recipe["version"].startswith("build 4242 (abc123), sha256 ")
    assert quantise(tiny, "tiny", "F16", asked=str(binary)) == made
    with pytest.raises(DataError, match="expected a file in Q8_0, got one in F16"):
        quantise(tiny, "tiny", "Q8_0", asked=str(binary))
    with pytest.raises(ConfigError, match=r"expected to make it with tool = 'cyllama'.*zoo rm tiny/F16"):
        quantise(tiny, "tiny", "F16", asked="cyllama")
    assert quantising.Tool("x").arguments("Q4_0", 2, requantise=True)[0] == "--allow-requantize"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"to": "Q4_KM"}, "expected a quantisation of llama.cpp, got 'Q4_KM'; did you mean 'Q4_K_M'"),
        ({"to": "Q8_0", "asked": "/no/llama-quantize"}, "expected a llama-quantize that can be run"),
        ({"to": "Q8_0", "source": "F32"}, "tiny: expected a GGUF file F32, got tiny"),
        (
            {"to": "Q8_0", "model": "other"},
            "other: expected a GGUF file .*got nothing.*melt-stream zoo pull other",
        ),
    ],
)
def test_what_cannot_be_quantised_is_told_before_anything_starts(tiny, arguments, says):
    with pytest.raises(ConfigError, match=says):
        quantise(tiny, **{"model": "tiny", **arguments})


def test_blocks_that_do_not_divide_rows_are_counted():
    tensors = [
        Tensor("a", "Q4_0", (576, 4), 0), Tensor("b", "Q3_K", (512, 4), 0), Tensor("norm", "F32", (576,), 0),
        Tensor("kept", "F32", (576, 4), 0), Tensor("c", "F16", (40, 4), 0),
    ]  # fmt: skip
    assert quantising.fallbacks("Q3_K_M", tensors) == {"tensors": 2, "of": 3, "types": {"Q4_0": 1, "F16": 1}}
    assert quantising.fallbacks("Q4_0", tensors) == {"tensors": 1, "of": 3, "types": {"F16": 1}}
    assert quantising.fallbacks("F16", tensors)["tensors"] == 0
    assert [quantising.block(to) for to in ("Q2_K", "IQ4_XS", "IQ4_NL", "TQ1_0", "Q5_1")] == [
        256,
        256,
        32,
        256,
        32,
    ]


def test_peak_memory_is_the_commands_own(tmp_path):
    small = running.run([sys.executable, "-c", "pass"], tmp_path, "small")
    large = running.run([sys.executable, "-c", "b = bytearray(300 << 20); print(len(b))"], tmp_path, "large")
    again = running.run([sys.executable, "-c", "pass"], tmp_path, "small")
    assert large.said == str(300 << 20)
    assert large.peak_memory > 300 << 20
    assert max(small.peak_memory, again.peak_memory) < 100 << 20
    with pytest.raises(ConfigError, match="expected a command that starts, got /no/such: No such file"):
        running.run(["/no/such"], tmp_path, "none")


@pytest.mark.model
@pytest.mark.root
def test_a_disk_without_room_is_told_before_anything_is_made(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=66m", "none", disk], check=True)
    try:
        store = Store(disk / "zoo")
        with pytest.raises(
            ConfigError, match=r"pull smollm2-135m: expected 98\.36 MB of disk .* got \d+\.\d+ MB free"
        ):
            pull(store, registry.read()[MODEL])
        assert store.artefacts() == []
    finally:
        subprocess.run(["umount", disk], check=True)
