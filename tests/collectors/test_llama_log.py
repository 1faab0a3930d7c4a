"""A llama-server's log, as two of its generations write it, and as nobody does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors._chat import Timings
from melt_stream.collectors._llama_log import Task, Tasks, stamp

NEW = """\
0.00.256.006 I slot get_availabl: id  0 | task -1 | selected slot by LRU, t_last = -1
0.00.256.111 I slot launch_slot_: id  0 | task 0 | processing task, is_child = 0
0.00.399.995 I slot print_timing: id  0 | task 0 | prompt eval time =     124.24 ms /    32 tokens (    3.88 ms per token,   257.56 tokens per second)
0.00.400.001 I slot print_timing: id  0 | task 0 |        eval time =      19.60 ms /     4 tokens (    6.53 ms per token,   153.07 tokens per second)
0.00.400.001 I slot print_timing: id  0 | task 0 |       total time =     143.84 ms /    36 tokens
0.00.400.024 I slot      release: id  0 | task 0 | stop processing: n_tokens = 35, truncated = 0
"""
OLD = """\
1.02.256.111 I slot launch_slot_: id  0 | task 7 | processing task
1.02.399.995 I slot print_timing: id  0 | task 7 |
prompt eval time =     124.24 ms /    32 tokens (    3.88 ms per token,   257.56 tokens per second)
       eval time =      19.60 ms /     4 tokens (    6.53 ms per token,   153.07 tokens per second)
      total time =     143.84 ms /    36 tokens
"""


def tasks(text):
    found = Tasks()
    return [task for line in text.splitlines() if (task := found.feed(line))]


def test_a_task_lies_between_its_launch_and_its_timings():
    assert tasks(NEW) == [Task(256_111, 400_001, 124.24, 32, 19.6, 4)]
    assert tasks(OLD) == [Task(62_256_111, 62_399_995, 124.24, 32, 19.6, 4)]


def test_tasks_of_several_slots_are_told_apart():
    lines = NEW.splitlines()
    other = [
        line.replace("task 0", "task 1").replace("124.24", "99.00").replace("id  0", "id  1")
        for line in lines
    ]
    mixed = "\n".join(line for pair in zip(lines, other, strict=True) for line in pair)
    assert [task.prompt_ms for task in tasks(mixed)] == [124.24, 99.0]


@pytest.mark.parametrize(
    ("ms", "n", "same"), [(124.2449, 4, True), (124.236, 4, True), (124.26, 4, False), (124.24, 5, False)]
)
def test_an_answers_timings_name_their_task(ms, n, same):
    timings = Timings(prompt_n=32, prompt_ms=ms, predicted_n=n, predicted_ms=19.602)
    assert tasks(NEW)[0].is_of(timings) == same


def test_a_line_without_a_time_has_none():
    assert stamp("10.59.000.001 W srv") == 659_000_001
    assert [stamp(line) for line in ("", "x", "0.60.000.000 I", "slot launch_slot_")] == [None] * 4
    assert tasks("\n".join(line.partition(" ")[2] for line in NEW.splitlines())) == []


@given(st.lists(st.one_of(st.text(), st.sampled_from([*NEW.splitlines(), *OLD.splitlines()])), max_size=30))
def test_whatever_a_log_says_a_task_ends_after_it_began_or_is_none(lines):
    found = Tasks()
    for line in lines:
        if (task := found.feed(line)) is not None:
            assert task.predicted_n >= 0
