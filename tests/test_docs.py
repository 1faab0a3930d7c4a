"""What the documents say is run: each Python block, each `melt-stream` command, each link to a file.

A document's blocks run in order, in a folder of their own that has the repository's examples/, and the Python
blocks share one namespace. A block that cannot run is fenced as `text`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Example
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(p for p in ROOT.glob("docs/**/*.md") if p.name != "0000-template.md")]
)
SECONDS = 120
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def commands(console: str) -> Iterator[str]:
    """The `melt-stream` commands after a `$`, with lines that end in a backslash joined."""
    for line in console.replace("\\\n", " ").splitlines():
        command = line.removeprefix("$ ")
        if command != line and re.match(r"melt-stream\b|python -m melt_stream\b", command):
            yield command


def run_console(example: Example) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands(example.parsed):
        done = subprocess.run(
            ["bash", "-c", command],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if done.returncode:
            where = f"{example.path}:{example.line}: $ {command}"
            raise AssertionError(f"{where}\nexit {done.returncode}\n{done.stdout}{done.stderr}")


PARSERS = [PythonCodeBlockParser(), CodeBlockParser(language="console", evaluator=run_console)]


def runnable(path: Path) -> Document:
    return Document.parse(str(path), *PARSERS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", [p for p in DOCUMENTS if list(runnable(p).examples())], ids=lambda p: p.name)
def test_what_a_document_shows_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (ROOT / "examples").exists():
        (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MELT_ARCHIVE", raising=False)
    monkeypatch.setenv("MELT_STREAM_ZOO", str(tmp_path / "zoo"))
    document = runnable(path)
    document.namespace["__name__"] = "__main__"
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(path: Path) -> None:
    targets = [a or b for a, b in LINK.findall(path.read_text())]
    files = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    assert [f for f in files if not (path.parent / f).exists()] == []


def example_in(tmp_path: Path, text: str) -> list[Example]:
    path = tmp_path / "page.md"
    path.write_text(text)
    return list(runnable(path).examples())


def test_a_failing_snippet_and_a_failing_command_fail(tmp_path: Path) -> None:
    good, bad, command, *rest = example_in(
        tmp_path,
        "```python\nx = 1\n```\n```python\nassert x == 2\n```\n"
        "```console\n$ melt-stream no-such-command\n```\n```text\n$ melt-stream no\n```\n",
    )
    assert rest == []
    good.evaluate()
    with pytest.raises(AssertionError):
        bad.evaluate()
    with pytest.raises(AssertionError, match=r"melt-stream no-such-command\nexit [1-9]"):
        command.evaluate()


def test_only_our_commands_are_run_and_long_lines_are_joined() -> None:
    console = (
        "$ git clone x\n$ melt-stream run a.toml \\\n    --json\noutput\n$ python -m melt_stream doctor\n"
    )
    assert list(commands(console)) == ["melt-stream run a.toml      --json", "python -m melt_stream doctor"]
