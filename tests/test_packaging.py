"""The folders at the top are sub-packages of melt_stream: in the wheel, through the links, and in who imports whom."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINKED = ("analysis", "collectors", "sinks")
CONTRACTS = {c["id"]: c for c in PYPROJECT["tool"]["importlinter"]["contracts"]}


def copy_of_the_tree(to: Path) -> Path:
    """What a wheel is made of, and what the contracts read, with links as links."""
    caches = shutil.ignore_patterns("__pycache__", "*.nb[ic]", "*.pyc")
    for folder in ("melt_stream", "scripts", *LINKED):
        shutil.copytree(ROOT / folder, to / folder, symlinks=True, ignore=caches)
    for name in LINKED:  # also where this clone has none
        (to / "melt_stream" / name).unlink()
        (to / "melt_stream" / name).symlink_to(f"../{name}")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, to / name)
    return to


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def python(code: str, *arguments: object, cwd: Path) -> str:
    done = run(sys.executable, "-c", code, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build_wheel(tree: Path) -> ZipFile:
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    name = python(code, tree / "dist", cwd=tree).splitlines()[-1]
    return ZipFile(tree / "dist" / name)


def names_in(wheel: ZipFile) -> set[str]:
    return {n for n in wheel.namelist() if ".dist-info/" not in n}


def names_in_the_tree(tree: Path) -> set[str]:
    """Each file of the package once, under the name it is imported by."""
    linked = {
        f"melt_stream/{p.relative_to(tree)}" for f in LINKED for p in (tree / f).rglob("*") if p.is_file()
    }
    own = {
        str(p.relative_to(tree))
        for p in (tree / "melt_stream").rglob("*")
        if p.is_file() and p.relative_to(tree / "melt_stream").parts[0] not in LINKED
    }
    return linked | own


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_tree(tmp_path_factory.mktemp("tree"))


def test_the_wheel_holds_the_tree_and_can_be_imported(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    expected = names_in_the_tree(tree)
    wheel = build_wheel(tree)
    assert names_in(wheel) == expected
    assert {"melt_stream/py.typed", "melt_stream/collectors/__init__.py"} <= expected
    wheel.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import melt_stream.analysis, melt_stream.collectors, melt_stream.sinks as s; print(s.__file__)"
    )
    assert python(code, tmp_path / "site", cwd=tmp_path).startswith(str(tmp_path / "site"))


def test_the_wheel_is_the_same_from_a_clone_without_symbolic_links(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    expected = names_in_the_tree(tree)
    for name in LINKED:
        link = tree / "melt_stream" / name
        target = str(link.readlink())
        link.unlink()
        link.write_text(target)  # what git leaves with core.symlinks=false
    assert names_in(build_wheel(tree)) == expected


def test_a_sub_package_that_is_not_listed_is_noticed(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    new = tree / "melt_stream" / "newcomer"
    new.mkdir()
    (new / "__init__.py").write_text('"""New."""\n')
    assert "melt_stream/newcomer/__init__.py" in names_in_the_tree(tree) - names_in(build_wheel(tree))


@pytest.mark.parametrize("name", LINKED)
def test_the_link_is_there_and_relative(name: str) -> None:
    link = ROOT / "melt_stream" / name
    if run("git", "config", "core.symlinks", cwd=ROOT).stdout == "false\n":
        pytest.skip("this clone was made without symbolic links")
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert (link / "__init__.py").samefile(ROOT / name / "__init__.py")


def modules_of_the_package(tree: Path) -> list[str]:
    names = {
        n.removesuffix(".py").removesuffix("/__init__") for n in names_in_the_tree(tree) if n.endswith(".py")
    }
    return sorted(n.replace("/", ".") for n in names if not n.endswith("__main__"))


IMPORT_ALL = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
BARE = "print(sorted({'collectors', 'sinks', 'analysis'} & {n.partition('.')[0] for n in sys.modules}))"


def test_nothing_in_the_package_imports_a_bare_name(tree: Path) -> None:
    """Run at the root, where the bare names can be imported, and would be a second copy of each module."""
    modules = modules_of_the_package(ROOT)
    assert "melt_stream.collectors" in modules
    assert python(IMPORT_ALL + BARE, *modules, cwd=ROOT) == "[]\n"
    assert python(IMPORT_ALL + BARE, "melt_stream", "analysis", cwd=ROOT) == "['analysis']\n"


def lint_imports(tree: Path, contract: str) -> str:
    """import-linter's verdict on the copy, "" when the contract is kept."""
    done = run(Path(sys.executable).parent / "lint-imports", "--no-cache", "--contract", contract, cwd=tree)
    assert done.returncode in (0, 1), done.stderr
    assert ("1 kept, 0 broken" if done.returncode == 0 else "0 kept, 1 broken") in done.stdout, done.stdout
    return "" if done.returncode == 0 else done.stdout


# contract, a module, what it may not import, and what the verdict says.
VIOLATIONS = [
    (
        "layers",
        "harness/trial",
        "melt_stream.cli.run",
        "melt_stream.harness is not allowed to import melt_stream.cli",
    ),
    ("layers", "testing/fake", "melt_stream.harness.trial", "melt_stream.testing is not allowed"),
    ("layers", "emulators/meter", "melt_stream.testing.fake", "melt_stream.emulators is not allowed"),
    ("layers", "testing/fake", "melt_stream.emulators.meter", "melt_stream.testing is not allowed"),
    ("layers", "collectors/new", "melt_stream.testing.fake", "melt_stream.collectors is not allowed"),
    ("layers", "collectors/new", "melt_stream.analysis", "melt_stream.collectors is not allowed"),
    ("layers", "sinks/new", "melt_stream.collectors", "melt_stream.sinks is not allowed"),
    ("layers", "analysis/new", "melt_stream.sinks", "melt_stream.analysis is not allowed"),
    ("layers", "devices/board", "melt_stream.collectors", "melt_stream.devices is not allowed"),
    ("layers", "units", "melt_stream.devices.board", "melt_stream.units is not allowed"),
    ("layers", "unheard_of", "json", "- melt_stream.unheard_of"),
    ("collectors", "collectors/new", "melt_stream.collectors.other", "new -> melt_stream.collectors.other"),
    (
        "collectors",
        "collectors/_shared",
        "melt_stream.collectors.other",
        "_shared -> melt_stream.collectors.other",
    ),
    ("sinks", "sinks/new", "melt_stream.sinks.other", "new -> melt_stream.sinks.other"),
    ("numba", "collectors/new", "numba", "melt_stream.collectors.new -> numba"),
    ("numba", "units", "numba", "melt_stream.units -> numba"),
]


@pytest.fixture
def written(tree: Path) -> Iterator["Written"]:
    files = Written(tree)
    yield files
    files.undo()


class Written:
    """Modules added to the copy of the tree, or appended to, and taken out again."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.before: dict[Path, str | None] = {}

    def module(self, name: str, text: str = "") -> None:
        path = self.tree / "melt_stream" / f"{name}.py"
        package = path.with_name("__init__.py")
        if path != package and not package.exists():
            package.parent.mkdir(exist_ok=True)
            self.before[package] = None
            package.touch()
        old = path.read_text() if path.exists() else None
        self.before.setdefault(path, old)
        path.write_text(f"{old or ''}\n{text}\n")

    def undo(self) -> None:
        for path, old in self.before.items():
            if old is None:
                path.unlink()
            else:
                path.write_text(old)


@pytest.mark.parametrize(("contract", "importer", "imported", "says"), VIOLATIONS)
def test_each_contract_bites(
    tree: Path, written: Written, contract: str, importer: str, imported: str, says: str
) -> None:
    if imported.startswith("melt_stream.") and imported.count(".") > 1:
        written.module(imported.removeprefix("melt_stream.").replace(".", "/"))
    written.module(importer, f"def later() -> None:\n    import {imported}")
    verdict = lint_imports(tree, contract)
    assert says in " ".join(verdict.split())


@pytest.mark.parametrize("contract", CONTRACTS)
def test_each_contract_is_kept_and_has_its_violation(tree: Path, contract: str) -> None:
    assert lint_imports(tree, contract) == ""
    assert contract in {v[0] for v in VIOLATIONS}


def test_what_is_shared_or_decoded_may_be_imported(tree: Path, written: Written) -> None:
    written.module("collectors/_decode_new", "import numba")
    written.module("collectors/new", "import melt_stream.collectors._decode_new")
    assert lint_imports(tree, "numba") == ""
    assert lint_imports(tree, "collectors") == ""
