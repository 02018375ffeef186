#!/usr/bin/env python3
"""The log readers: what they take, what they refuse and with which sentence, and mutated files of every format."""

import io
import os
import random
import sys
from contextlib import redirect_stderr, redirect_stdout

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), p) for p in ("../..", "..")]
from plotting.errors import LogError  # noqa: E402
from plotting.formats.iteration_log import read_deepspeed, read_megatron  # noqa: E402
from plotting.formats.loads import read_loads  # noqa: E402
from plotting.formats.perf_model import read_perf_model  # noqa: E402
from plotting.formats.profiler import read_profile  # noqa: E402
from plotting.formats.replay import read_changes, read_replay  # noqa: E402
from plotting.formats.runlog import read_run  # noqa: E402
from plotting.formats.simulated import read_simulated  # noqa: E402
from plotting.formats.swin import read_swin  # noqa: E402
from plotting.main import main  # noqa: E402
from plotting_support import artifact, runs  # noqa: E402
from plotting_support.check import Check, run_tests  # noqa: E402

SAMPLES = {  # reader: a whole small file of its format
    read_megatron: artifact.megatron([11000.0, 1808.9, 1810.0]),
    read_deepspeed: artifact.megatron([11000.0, 1808.9, 1810.0], tokens=True),
    read_swin: artifact.swin("0:31:08", 14.6),
    read_profile: artifact.profile(16, 1, [6.0, 7.0], [9.0, 8.0], iterations=3),
    read_perf_model: artifact.perf_model(24.7, [19.0, 29.0, 25.0, 22.0, 24.0], [20.0, 30.0, 25.0, 21.0, 23.0]),
    read_replay: artifact.replay([71.0, 181.0, 192.0], [68.0, 146.0, 145.0]),
    read_changes: "1\n11\n21\n",
    read_run: runs.run_log("smartmoe:2", steps=4, layers=2),
    read_simulated: runs.simulated("eplb", steps=6),
    read_loads: runs.loads_csv(steps=3, layers=2, experts=4),
}
MUTATIONS = 60 if os.environ.get("BL_TEST_QUICK") else 250  # of each format


def store(folder, text, name="sample.log"):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    return path


def refuses(check, folder, reader, text, line, words):
    """The reader raises one sentence with this line and these words."""
    path = store(folder, text)
    try:
        reader(path)
    except LogError as error:
        place = f"{path}:{line}: " if line else f"{path}: "
        check(str(error).startswith(place) and words in str(error), f"{reader.__name__}: expected '{words}', got: {error}")
        return
    check(False, f"{reader.__name__} took what it should refuse ({words})")


def takes(check, folder):
    """Values come out as they stand in the files."""
    got = {reader: reader(store(folder, text)) for reader, text in SAMPLES.items()}
    for reader in (read_megatron, read_deepspeed):
        check(got[reader].times_ms == [11000.0, 1808.9, 1810.0] and got[reader].status() == "complete", reader.__name__)
    check(got[read_swin].epochs_s == [1868] and got[read_swin].epochs_text == ["0:31:08"], "Swin: an epoch")
    check(got[read_swin].intervals_s == [14.6] * 20, "Swin: intervals")
    check(read_swin(store(folder, artifact.swin("1 day, 1:00:01", 1.0))).epochs_s == [90001], "Swin: days")
    profile = got[read_profile]
    check((profile.rank, profile.stage, profile.iterations, profile.layers()) == (16, 1, 3, 2), "profile: its place")
    check(abs(profile.seconds(1, ("fwd", "bwd")) - 0.045) < 1e-12, "profile: seconds")
    check(got[read_perf_model].naive_ms == 24.7 and got[read_perf_model].est_ms[1] == 29.0, "performance model")
    check(got[read_replay] == ([71.0, 181.0, 192.0], [68.0, 146.0, 145.0]), "replay")
    check(got[read_changes] == [1, 11, 21], "changes")


def statuses(check, folder):
    """Why a training log is not complete."""
    whole = SAMPLES[read_megatron].split("\n")
    check(read_megatron(store(folder, "\n".join(whole[:4]) + "\n")).status() == "truncated", "stops early")
    cut = read_megatron(store(folder, "\n".join(whole[:4]) + "\n" + whole[4][:90]))
    check(cut.status() == "truncated" and len(cut.times_ms) == 2 and cut.cut, "a cut line does not count")
    memory = read_megatron(store(folder, "\n".join(whole[:3]) + "\nRuntimeError: CUDA out of memory. Tried\n"))
    check(memory.status() == "out of memory", "out of memory")
    check(read_megatron(store(folder, "Traceback (most recent call last):\n")).status() == "failed", "a crash")
    check(read_megatron(store(folder, "")).status() == "truncated", "an empty log")


def refusals(check, folder):
    """What each reader says to what it does not understand."""
    text, bad = SAMPLES[read_megatron], refuses
    bad(check, folder, read_megatron, text.replace("2/", "3/"), 4, "iteration 2 was expected, found 3")
    bad(check, folder, read_megatron, text.replace("(ms): 1808.9", "(ms): 18x8.9"), 4, "a number was expected")
    bad(check, folder, read_megatron, text.replace("(ms): 1808.9", "(ms): -5.0"), 4, "at least")
    bad(check, folder, read_megatron, text.replace("(ms): 1808.9", "(ms): 1e999"), 4, "a finite number")
    bad(check, folder, read_megatron, text.replace("(ms): 1808.9", "(s): 1808.9"), 4, "is missing in the iteration line")
    bad(check, folder, read_megatron, SAMPLES[read_deepspeed], 3, "DeepSpeed's lines")
    bad(check, folder, read_deepspeed, text, 3, "'consumed tokens' is missing")
    bad(check, folder, read_swin, SAMPLES[read_swin].replace("0:31:08", "0:31:78"), 22, "no minutes and seconds")
    bad(check, folder, read_swin, SAMPLES[read_swin].replace("batch_time 14", "batch_time x", 1), 2, "batch_time")
    text = SAMPLES[read_profile]
    bad(check, folder, read_profile, text.replace('"iteration": 2', '"iteration": 7'), 3, "iteration 2 was expected")
    bad(check, folder, read_profile, text.replace('"rank": 16, "tp', '"rank": 17, "tp', 1), 2, "one file")
    bad(check, folder, read_profile, text.replace('"total": 9.0', '"total": NaN', 1), 2, "NaN is no JSON number")
    bad(check, folder, read_profile, text.replace("MoE_L1_fwd", "MoE_L1_bwd", 1), 2, "stands twice")
    bad(check, folder, read_profile, "\n".join(text.split("\n")[:1]) + "\n", 0, "no record of an iteration")
    bad(check, folder, read_perf_model, '5\n{"real": [1, 2], "est": [1, 2, 3]}\n', 2, "2 measured and 3 estimated")
    bad(check, folder, read_perf_model, '5\n{"real": [1, 0, 1, 1], "est": [1, 2, 3, 1]}\n', 2, "real[1]: at least")
    bad(check, folder, read_perf_model, "5\n", 0, "two lines were expected")
    bad(check, folder, read_replay, '{"FastMoE": [1, 2]}\n', 1, 'the key "SmartMoE" is missing')
    bad(check, folder, read_replay, '{"FastMoE": [1, 2], "SmartMoE": [1]}\n', 1, "2 static and 1 dynamic")
    bad(check, folder, read_replay, "[" * 100000, 1, "is not JSON")
    bad(check, folder, read_changes, "1\n11\n11\n", 3, "iteration 11 follows iteration 11")
    for reader in SAMPLES:
        path = os.path.join(folder, "nothing")
        try:
            reader(path)
            check(False, f"{reader.__name__} read a file that is not there")
        except LogError as error:
            check(str(error) == f"{path}: cannot be read: No such file or directory", str(error))


def refuses_runs(check, folder):
    """Ballast's own formats."""
    text, bad = SAMPLES[read_run], refuses
    bad(check, folder, read_run, text.replace('"step": 2', '"step": 3', 1), 3, "step 2 was expected, found 3")
    bad(check, folder, read_run, text.replace('"loss"', '"lost"', 1), 2, "loss")
    bad(check, folder, read_run, text.replace('"imbalance": 1', '"imbalance": 0', 1), 2, "imbalance")
    bad(check, folder, read_run, text.replace('"config"', '"cfg"', 1), 1, 'the key "config" is missing')
    bad(check, folder, read_run, text.replace('"ranks": 4', '"ranks": 0', 1), 1, "config.ranks: at least 1")
    bad(check, folder, read_run, text.replace('"fill_bytes"', '"full_bytes"', 1), 2, "unknown key")
    bad(check, folder, read_run, "\n".join(text.split("\n")[1:]), 1, 'the key "command" is missing')
    bad(check, folder, read_run, "", 0, "is empty")
    text = SAMPLES[read_simulated]
    bad(check, folder, read_simulated, text.replace('"steps": 6', '"steps": 7'), 0, "7 steps were expected, found 6")
    bad(check, folder, read_simulated, text.replace('"measured_us"', '"mesured_us"', 1), 0, "unknown key")
    bad(check, folder, read_simulated, text.replace('"step_us": ', '"step_us": -', 1), 0, "at least")
    text = SAMPLES[read_loads]
    bad(check, folder, read_loads, text.replace("step,", "stop,", 1), 1, "step,layer,rank,micro_batch")
    bad(check, folder, read_loads, text.replace("\n1,0,0,0,", "\n1,0,0,0,-", 1), 2, "at least 0")
    bad(check, folder, read_loads, text.split("\n")[0] + "\n", 0, "no row")


def mutate(data, rng):
    """One to four random edits of bytes or whole lines."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(data) or 1), rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            del data[at:at + rng.randint(1, 30)]
        elif kind == 2:
            data[at:at] = bytes(rng.choice(b'0123456789.eE+-"{}[],:| \n\t\x00\xff') for _ in range(rng.randint(1, 8)))
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:at] = rng.choice([b"NaN", b"1e999", b"-1", b"null", b"9" * 5000, b"[" * 3000, b"true", b"{}"])
        else:
            lines = bytes(data).split(b"\n")
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            if kind == 5:
                lines[i], lines[j] = lines[j], lines[i]
            else:
                lines.insert(i, lines[j])
            data = bytearray(b"\n".join(lines))
    return bytes(data)


def fuzz_readers(check, folder):
    """Whatever the bytes: values, or one LogError of one line that names the file."""
    rng = random.Random(20240607)
    for reader, text in SAMPLES.items():
        taken = refused = 0
        for _ in range(MUTATIONS):
            path = store(folder, mutate(text.encode(), rng))
            try:
                reader(path)
                taken += 1
            except LogError as error:
                refused += 1
                check("\n" not in str(error) and path in str(error) and len(str(error)) < 500, f"one sentence: {error}")
        check(refused > 0, f"{reader.__name__}: none of {MUTATIONS} mutations was refused")
        check(taken + refused == MUTATIONS, reader.__name__)


def fuzz_folders(check, folder):
    """Whole folders with mutated files: exit 0 or 1, sentences only."""
    rng = random.Random(7)
    logs = artifact.tree(os.path.join(folder, "logs"))
    own = runs.folder(os.path.join(folder, "own"))
    for root, rounds in ((logs, 5), (own, 5)):
        paths = [os.path.join(base, name) for base, _, names in os.walk(root) for name in names]
        whole = {path: open(path, "rb").read() for path in paths}
        for at in range(rounds):
            for path in rng.sample(paths, min(len(paths), 12)):
                store(folder, mutate(whole[path], rng), path)
            out, err = io.StringIO(), io.StringIO()
            with redirect_stdout(out), redirect_stderr(err):
                code = main([root, "--out", os.path.join(folder, f"out{at}")])
            check(code in (0, 1), f"exit {code}")
            check("Traceback" not in err.getvalue(), err.getvalue())
            for path in paths:
                store(folder, whole[path], path)


if __name__ == "__main__":
    sys.exit(run_tests(Check(), [takes, statuses, refusals, refuses_runs, fuzz_readers, fuzz_folders]))
