import os
import subprocess
import sys
import textwrap
from functools import partial

import pytest
import trio

from melt_stream.collectors.command import Command
from melt_stream.errors import ConfigError
from melt_stream.outlet import Hub
from tests.collectors.scripted_http import Recorded, check_nobody_outlives, holders_of, in_thread, run


def python(code: str, *arguments: str, **fields) -> Command:
    return Command([sys.executable, "-c", textwrap.dedent(code), *arguments], **fields)


async def test_a_command_is_one_request_without_tokens():
    command = Command(["true"])
    before = Hub().now()
    recorded = await run(command)
    start, end = recorded.events()
    assert (start["kind"], end["kind"]) == ("window_start", "window_end")
    assert start["request"] == end["request"] == 1
    assert start["name"] == end["name"] == "true"
    assert before <= start["tick"] < end["tick"] <= Hub().now()
    assert command.exit_status == 0
    assert recorded.facts == {"command": ["true"], "exit_status": 0}


async def test_its_exit_status_is_kept():
    command = Command(["sh", "-c", "exit 7"], name="seven")
    recorded = await run(command)
    assert command.exit_status == 7
    assert recorded.detail("window_end") == [{"exit_status": 7}]
    assert recorded.events("window_end")[0]["name"] == "seven"


async def test_a_signal_that_ends_it_is_told_as_a_shell_does():
    command = Command(["sh", "-c", "kill -9 $$"])
    await run(command)
    assert command.exit_status == 137


@pytest.mark.parametrize(("name", "status"), [("no-such-program", 127), ("./none", 127), ("./plain", 126)])
def test_what_cannot_be_run_is_told_as_a_shell_does(tmp_path, monkeypatch, name, status):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_text("text")
    command = Command([name])
    with pytest.raises(ConfigError, match="expected a program that can be run"):
        command.prepare()
    assert command.exit_status == status


@pytest.mark.parametrize("text", ["no program", "#!/no/such/interpreter\n"])
async def test_what_turns_out_not_to_run_is_told_too(tmp_path, text):
    (tmp_path / "odd").write_text(text)
    (tmp_path / "odd").chmod(0o755)
    command, hub = Command([str(tmp_path / "odd")]), Hub()
    command.prepare()
    with pytest.raises(ConfigError, match="expected a program that can be run"):
        await command.collect(hub.outlet("w"))
    assert command.exit_status == (127 if "#!" in text else 126)
    assert len(Recorded(hub).events("request_error")) == 1


def test_an_empty_command_is_refused():
    with pytest.raises(ConfigError, match="expected a program and its arguments"):
        Command([])


async def test_its_output_passes_through(capfd):
    await run(Command(["sh", "-c", "echo out; echo err >&2"]))
    assert capfd.readouterr() == ("out\n", "err\n")
    await run(Command(["sh", "-c", "echo out; echo err >&2"], stdout="stderr"))
    assert capfd.readouterr() == ("", "out\nerr\n")


async def test_it_has_a_process_group_of_its_own(capfd):
    await run(python("import os; print(os.getpgrp() == os.getpid(), os.getpgrp())"))
    own, group = capfd.readouterr().out.split()
    assert own == "True"
    assert int(group) != os.getpgrp()


@pytest.mark.parametrize(("stubborn", "status"), [(False, 143), (True, 137)])
async def test_cancelled_its_whole_group_gets_sigterm_and_then_sigkill(tmp_path, stubborn, status):
    os.mkfifo(tmp_path / "alive")
    trap = "trap '' TERM; " if stubborn else ""
    script = f"{trap}exec 9>{tmp_path}/alive; sleep 1000 & sleep 1000; wait"  # both hold the fifo open
    command, hub = Command(["sh", "-c", script], grace=0.2), Hub()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(command.collect, hub.outlet("w"))
        async with holders_of(tmp_path / "alive") as ended:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await ended()
    assert command.exit_status == status
    assert Recorded(hub).detail("window_end") == [{"exit_status": status}]


async def test_what_a_command_leaves_running_by_its_own_end_stays(tmp_path):
    for name in ("ask", "answer"):
        os.mkfifo(tmp_path / name)
    command = Command(
        ["sh", "-c", f"(read line <{tmp_path}/ask; echo got $line >{tmp_path}/answer) & exit 0"]
    )
    await run(command)
    assert command.exit_status == 0
    with trio.fail_after(20):
        await in_thread(partial((tmp_path / "ask").write_text, "hello\n"))
        assert await in_thread((tmp_path / "answer").read_text) == "got hello\n"


async def test_it_does_not_outlive_a_recorder_killed_with_9(tmp_path):
    script = """
        import sys, trio
        from melt_stream.collectors.command import Command
        from melt_stream.outlet import Hub
        trio.run(Command(["sh", "-c", sys.argv[1]], grace=0.2).collect, Hub().outlet("w"))
    """
    stubborn = f"trap '' TERM; exec 9>{tmp_path}/alive; sleep 1000; sleep 1000"
    await check_nobody_outlives(script, stubborn, alive=tmp_path / "alive")


async def test_a_recorder_killed_before_it_could_tell_its_guard_leaves_nobody(tmp_path):
    script = """
        import sys, trio
        from melt_stream.collectors import _process
        from melt_stream.collectors.command import Command
        from melt_stream.outlet import Hub

        async def never(guard, line):
            await trio.sleep_forever()

        _process._tell = never
        trio.run(Command(["sh", "-c", sys.argv[1]], grace=0.2).collect, Hub().outlet("w"))
    """
    held = f"exec 9>{tmp_path}/alive; sleep 1000; sleep 1000"
    await check_nobody_outlives(script, held, alive=tmp_path / "alive")


async def test_stdin_passes_through_unless_it_is_a_terminal():
    script = """
        import sys, trio
        from melt_stream.collectors.command import Command
        from melt_stream.outlet import Hub
        trio.run(Command(["cat"]).collect, Hub().outlet("w"))
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script)]
    done = await trio.run_process(arguments, stdin=b"through", capture_stdout=True)
    assert done.stdout == b"through"
    leader, follower = os.openpty()
    try:
        done = await trio.run_process(
            arguments, stdin=follower, capture_stdout=True, stderr=subprocess.STDOUT
        )
    finally:
        os.close(follower)
        os.close(leader)
    assert done.stdout == b""
