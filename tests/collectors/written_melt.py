"""Run directories of MELT's labs, written by the formats that their code has; every number is ours.

One iteration, conversation 0, two prompts. The truth: the meter's samples are 1 W before ``RISE`` of the controller's clock and 3 W from then on.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

BEGAN = 1_709_741_000.25
"""``.t_monsoon``."""
LATE = 1.3
"""s from PyMonsoon's start of counting to ``.t_monsoon``: its calibration."""
FIRST = 1.5
"""The first stamp."""
T0 = int(BEGAN)
MS = 1_000_000


def ns(seconds: float, ahead: float = 0.0) -> int:
    """``T0 + seconds`` by a clock that is ``ahead``, in whole ms, in ns since 1970."""
    return (T0 * 1000 + round((seconds + ahead) * 1000)) * MS


def trace(
    folder: Path, *, seconds: float = 30.0, rise: float = 10.0, packet: int = 15, crlf: bool = False
) -> None:
    """5 kHz; stamps shared by the samples of a packet; 4 V; 250 mA, then 750 mA from ``T0 + rise`` on."""
    folder.mkdir(parents=True, exist_ok=True)
    began = BEGAN - LATE - T0  # of the count, since T0
    index = np.arange(int(seconds * 5000))
    taken = FIRST + index / 5000
    stamps = taken[np.minimum((index // packet + 1) * packet - 1, len(index) - 1)]
    amps = np.where(began + taken < rise, 250.0, 750.0)
    end = "\r\n" if crlf else "\n"
    lines = [f"{s!r},{a!r},4.0,{end}" for s, a in zip(stamps.tolist(), amps.tolist(), strict=True)]
    (folder / "measurements_monsoon.csv").write_text("".join(lines), newline="")
    (folder / ".t_monsoon").write_text(f"{BEGAN}\n")


def stages(folder: Path, *, run: tuple[float, float] = (2.0, 29.0)) -> None:
    rows = [("Setup", 0.5, 1.0, 0.1), ("Run_0", *run, 12.5), ("Experiment", run[0] - 0.5, run[1] + 0.5, 20.0)]
    lines = [f"{n},{T0 + a},{T0 + b},{b - a},{int(x * 1000)},7" for n, a, b, x in rows]
    (folder / "measurements_ts.csv").write_text(
        "\n".join(["stage,time_start,time_end,duration,rx,tx", *lines, ""])
    )


def adb(folder: Path) -> None:
    rows = [f"{T0 + 1 + 3 * k}.5,-1,-1,{20 + k}" for k in range(4)]
    (folder / "measurements_adb.csv").write_text("\n".join(["timestamp,current,voltage,cpu_util", *rows, ""]))


def measured(folder: Path) -> Path:
    path = folder / "melt_measurements"
    path.mkdir(parents=True, exist_ok=True)
    return path


def spans(rows, ahead: float, separator: str) -> str:
    """(name, start, end) in s since T0, ends None where missing; written out of order."""
    lines = [f"{n}.start{separator}{ns(a, ahead)}" for n, a, _ in rows]
    lines += [f"{n}.end{separator}{ns(b, ahead)}" for n, _, b in rows if b is not None]
    return "\n".join([*lines[::2], *lines[1::2], ""])


def script(folder: Path, rows, name: str = "measurements_iter0_conv0.csv") -> None:
    """(start, end, state) in s since T0."""
    lines = [f'{T0 + a:.3f},{b - a:.3f},"{state}"\r\n' for a, b, state in rows]
    (measured(folder) / name).write_text("".join(["start_date,duration,state\r\n", *lines]), newline="")


LLAMA = [
    ("load_model", 3.1, 4.9), ("load_model.llama_backend_init", 3.1, 3.2),
    ("prompt.1.tokenize", 6.01, 6.02), ("generate.2.decode", 6.02, 7.0), ("generate.3.decode", 7.0, 7.5), ("generate.4.decode", 7.5, 8.0),
    ("prompt.9.tokenize", 11.01, 11.02), ("generate.10.decode", 11.02, 11.5), ("generate.11.decode", 11.5, 12.0), ("generate.12.decode", 12.0, 12.5),
    ("generate.13.decode", 12.5, 13.0), ("model_free", 15.0, 15.1),
]  # fmt: skip
ASKED = [(3.0, 5.0, "load_model"), (6.0, 8.1, "Why, and, how?"), (11.0, 13.1, 'say ""no""')]
TIMINGS = """\
llama_print_timings:        load time =     525.17 ms
llama_print_timings:      sample time =       4.28 ms /    21 runs   (    0.20 ms per token,  4909.98 tokens per second)
llama_print_timings: prompt eval time =     {ms} ms /    {inputs} tokens (   49.05 ms per token,    {ptps} tokens per second)
llama_print_timings:        eval time =    1041.43 ms /    {outputs} runs   (   52.07 ms per token,    {tps} tokens per second)
llama_print_timings:       total time =   11653.83 ms
"""


def transcript(folder: Path, name: str = "llm_output_iter0_conv0.txt") -> None:
    """A group that is of no prompt, and the prompts': of the second one, two steps read the prompt."""
    groups = [(1.0, 1, 9.9, 1, 9.9), (980.0, 30, 30.61, 2, 2.0), (980.0, 700, 714.29, 2, 2.5)]
    text = "".join(
        TIMINGS.format(ms=ms, inputs=i, ptps=p, outputs=o, tps=t) + "> some text\n"
        for ms, i, p, o, t in groups
    )
    (measured(folder) / name).write_text("main: build = 1\n" + text)


def phone_llama(folder: Path, ahead: float = 0.0, seconds: float = 16.0) -> Path:
    """A phone whose wall clock is ``ahead`` s of the controller's, run by llama.cpp's expect script."""
    trace(folder, seconds=seconds)
    stages(folder)
    adb(folder)
    script(folder, ASKED)
    (measured(folder) / "measurements_iter0_conv0.tsv").write_text(spans(LLAMA, ahead, " "))
    transcript(folder)
    about = {
        "device": "Pixel 6a",
        "app": "LlamaCpp",
        "model": "tinyllama-q4_0",
        "runs": 1,
        "max_gen_len": 32,
        "temperature": None,
    }
    (folder / "configuration.json").write_text(json.dumps(about))
    return folder


MLC = [
    ("init", 1.0, 1.5), ("reload.0", 3.0, 4.5), ("unload.0", 2.9, 3.0),
    ("prefill.0", 6.0, 7.0), ("generate.decode.0", 7.0, 7.5), ("generate.decode.1", 7.5, 8.0), ("stopped.0", 8.0, 8.0), ("get_message.0", 8.0, 8.001),
    ("prefill.1", 11.0, 11.5), ("generate.decode.2", 11.5, 12.0), ("generate.decode.3", 12.0, None), ("generate.decode.4", 12.5, 13.0),
    ("reset_chat.0", 14.0, 14.2),
]  # fmt: skip


def talks(model: str, ahead: float, stats: bool = True) -> list[dict]:
    kept = json.dumps({
        "prefill": {"throughput": "30.0 tok/s", "total tokens": "30 tok"}, "decode": {"throughput": "2.5 tok/s", "total_tokens": "2 tok"}
    })  # fmt: skip
    questions = [(6.0, 2.1, 30, 2), (11.0, 2.1, 40, 3)]
    return [{
        "modelName": model, "modelLoadTime": {"start": T0 + 3.0 + ahead, "duration": 1.5},
        "questionRecords": [
            {"time": {"start": T0 + a + ahead, "duration": d}, "input": "Hi", "output": "Hello", "original_session_tokens": -1,
             "input_tokens": i, "output_tokens": o, "runtimeStats": kept if stats else ""} for a, d, i, o in questions
        ],
    }]  # fmt: skip


def phone_app(folder: Path, ahead: float = 0.0, seconds: float = 16.0) -> Path:
    """MLC's app on Android: everything of the answers is on the phone's clock."""
    trace(folder, seconds=seconds)
    stages(folder)
    (measured(folder) / "measurements_iter0.json").write_text(json.dumps(talks("gemma-2b", ahead)))
    (measured(folder) / "measurements_iter0_conv0.csv").write_text(spans(MLC, ahead, ","))
    return folder


def phone_farm(folder: Path, ahead: float = 0.0, seconds: float = 16.0) -> Path:
    """LLMFarmEval on an iPhone: spans of whole answers, llama.cpp's timers, thermal states."""
    trace(folder, seconds=seconds)
    stages(folder)
    rows = [("load_model", 3.0, 4.5), ("generate.0", 6.0, 8.0), ("generate.1", 11.0, 13.0)]
    (measured(folder) / "measurements_iter0.json").write_text(
        json.dumps(talks("gemma-2b", ahead, stats=False))
    )
    (measured(folder) / "measurements_iter0_conv0.csv").write_text(spans(rows, ahead, ","))
    timings = [
        "n_p_eval,t_p_eval_ms,n_eval,t_eval_ms,t_load_ms",
        "30,500.0,10,1400.0,9",
        "40,1000.0,5,900.0,9",
        "",
    ]
    (measured(folder) / "measurements_iter0_timing_conv0.csv").write_text("\n".join(timings))
    states = [
        {"timestamp": T0 + 9.0 + ahead, "state": "fair"},
        {"timestamp": T0 + 2.0 + ahead, "state": "nominal"},
    ]
    (measured(folder) / "measurements_iter0_thermals.json").write_text(json.dumps(states))
    return folder


def board_log(
    folder: Path, iteration: int = 0, start: float = 1.0, seconds: float = 15.0, rise: float = 10.0
) -> None:
    """An Orin Nano's monitor at 100 Hz: 5 V; 200 mA, from ``rise`` on 600 mA; counts in between, one torn by the buffer."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for k in range(int(seconds * 100)):
        at = T0 * 10**9 + round(start * 1e9) + k * 10_000_000
        amps = 200 if start + k / 100 < rise else 600
        lines.append(f"{at} GPU-therm: {35000 + k} mC")
        for rail, share in (("VDD_IN", 1.0), ("VDD_CPU_GPU_CV", 0.5)):
            at += 500_000
            ma = int(amps * share)
            lines += [
                f"{at} voltage_{rail}: 5000 mV",
                f"{at + 1000} current_{rail}: {ma} mA",
                f"{at + 2000} power_{rail}: {5.0 * ma} mW",
            ]
        if k % 50 == 0:
            lines += [str(n) for n in range(k, k + 50)]
            lines[-51] = f"{k}7{lines[-51]}"  # the last number of a buffer stands before a line
    lines.append("Traceback (most recent call last):")
    (folder / f"energy_iter{iteration}.log").write_text("\n".join([*lines, ""]))


def board_llama(folder: Path, seconds: float = 15.0) -> Path:
    """A Jetson: script, events and power by one clock."""
    board_log(folder, seconds=seconds)
    script(folder, ASKED)
    (measured(folder) / "measurements_iter0_conv0.tsv").write_text(spans(LLAMA, 0.0, " "))
    transcript(folder)
    return folder
