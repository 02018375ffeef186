#!/usr/bin/env python3
"""Command lines, outputs and moments that a careless user chooses: absurd options, outputs that would replace inputs, two runs
on one log, full disks, signals. One sentence, the right exit code, nothing lost and nothing half-written."""
import glob
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import BUILD, Check, folder, must, read_log, run, write_model, write_text  # noqa: E402

check = Check()
TRAIN, PLAN, TRACE, PROFILE = "ballast-train", "ballast-plan", "ballast-trace", "ballast-profile"


def refused(code, part, *command, left=None, **options):
    """`left`: a folder in which nothing may change."""
    before = snapshot(left) if left else None
    done = subprocess.run([str(BUILD / command[0]), *map(str, command[1:])], capture_output=True, text=True, timeout=60, **options)
    lines = done.stderr.splitlines()
    check(done.returncode == code and len(lines) == 1 and lines[0].startswith(f"{command[0]}: ") and part in lines[0]
          and done.stdout == "", f"{' '.join(map(str, command))[-200:]}: exit {done.returncode}, expected {code} with \"{part}\": {done.stderr[:500]!r}")
    check(not left or snapshot(left) == before, f"{' '.join(map(str, command))[-200:]}: changes the folder")


def snapshot(top):
    found = {}
    for path, _, names in os.walk(top):
        found[path] = None
        for name in names:
            with open(f"{path}/{name}", "rb") as file:
                found[f"{path}/{name}"] = file.read()
    return found


def command_lines(tmp, base, trace):
    replay, place, gen = [PLAN, "replay", "--trace", trace, "--ranks", 4], [PLAN, "place", "--trace", trace, "--ranks", 4], [TRACE, "gen", "-o", f"{tmp}/never"]
    rows = [(base, "--batch", ("0", "-1", "1e30", "nan", "x", "99999999999999999999"), "from 1 to 1000000"),
            (base, "--ranks", ("0", "-1", "1025", "2=3"), "from 1 to 1024"), (base, "--micro-batches", ("0", "65537"), "from 1 to 65536"),
            (base, "--steps", ("-1", "1e3", "9999999999999999"), "from 0 to 1000000000000"), (base, "--lr", ("nan", "inf", "-1", "11"), "from 0 to 10"),
            (base, "--seed", ("-1", "0x10", "9007199254740993"), "from 0 to 9000000000000000"), (base, "--lag", ("-1", "4097"), "from 0 to 4096"),
            (base, "--slots", ("-1", "3,", ",", "99999999999999999999"), "--slots"), (base, "--capacity-factor", ("0", "nan"), "from 0.01"),
            (base, "--policy", ("smartmoe", "smartmoe:0", "smartmoe:-3", "smartmoe:1x", "eplb", "eplb:99999999999999999999"), "N iterations between decisions"),
            (base, "--late-repair", ("0.5", "-1", "nan"), "--late-repair"), (base, "--gate", ("best", "trace", "trace:"), "expected naive, gshard"),
            (replay, "--late-repair", ("0.5", "nan"), "--late-repair"), (replay, "--lag", ("-1", "1e9"), "--lag"), (replay, "--policy", ("best", "eplb:0"), "--policy"),
            (replay, "--steps", ("9:1", ":", "1:2:3", "1:99999999999999999999"), "--steps"), (place, "--prove", ("0", "-1", "nan", "1e9"), "from 0.01"),
            (gen, "--zipf", ("nan", "-1"), "--zipf"), (gen, "--top-share", ("0", "1.5", "nan"), "--top-share"), (gen, "--steps", ("0", "-1"), "--steps"),
            ([PROFILE, "-o", f"{tmp}/never"], "--ranks", ("0", "65"), "from 1 to 64"), ([PROFILE, "-o", f"{tmp}/never"], "--samples", ("0", "102"), "from 1 to 101")]
    for command, option, values, part in rows:
        for value in values:
            refused(2, part, *command, option, value)
    for option in ("--model", "--data", "--plan", "--log", "--dump", "--record-trace", "--checkpoint", "--resume"):
        refused(2, f"{option}: expected", *base, option, "", left=tmp)
    refused(2, "ballast alone", *base, "--policy", "eplb:2", "--homes", "free")
    refused(2, "--checkpoint-every needs --checkpoint", *base, "--checkpoint-every", 5)
    refused(2, "multiple of 3", *base, "--ranks", 3)
    refused(1, "too few for 9 ranks", *base, "--ranks", 9, "--batch", 9)
    refused(1, "no step within", *replay, "--steps", "-5:-1")
    refused(1, "cannot hold 8 experts", *replay, "--slots", 1)
    refused(1, "counts a step", *gen, "--experts", 65536, "--layers", 4096, "--ranks", 65536, left=tmp)
    model = write_model(f"{tmp}/dense.json", moe__first_layer=50)
    refused(1, "expected a layer with experts", TRAIN, "--model", model, *base[3:])
    os.remove(model)


def uneven(base):
    """Experts that do not divide by the ranks, and lags beyond the run, work."""
    for policy in ("static", "smartmoe:1", "eplb:1", "fastermoe", "ballast", "ballast --homes free", "ballast --lag 4096"):
        for ranks in (3, 5, 7):
            code, _, err = run(*base, "--ranks", ranks, "--batch", ranks, "--policy", *policy.split())
            check(code == 0 and err == "", f"{policy} on {ranks} ranks: {code} {err!r}")


def outputs(tmp, base, trace):
    data, model = f"{tmp}/text", f"{tmp}/model.json"
    for option in ("--log", "--dump", "--record-trace"):
        refused(2, "expected another file", *base, option, data, left=tmp)
        refused(2, "expected another file", *base, option, f"{tmp}/./model.json", left=tmp)
        refused(2, f"{option} -: expected a file", *base, option, "-", left=tmp)
        refused(1, "/proc/none", *base, option, "/proc/none/x", left=tmp)
        refused(1, tmp, *base, option, tmp, left=tmp)
    refused(2, "expected another file", *base, "--gate", f"trace:{trace}", "--record-trace", trace, left=tmp)
    refused(2, "expected another file", *base, "--log", f"{tmp}/new", "--dump", f"{tmp}/new", left=tmp)
    refused(2, "expected another file", PLAN, "place", "--trace", trace, "--ranks", 4, "-o", trace, left=tmp)
    refused(2, "expected another file", PLAN, "replay", "--trace", trace, "--ranks", 4, "--dump", trace, left=tmp)
    refused(2, "expected another file", TRACE, "export", trace, "--to", "csv", "-o", trace, left=tmp)
    refused(2, "expected another file", PROFILE, "--model", model, "-o", model, left=tmp)
    refused(1, "cannot create", PROFILE, "-o", "/proc/none/x")  # at once, not after minutes of measuring
    refused(1, "cannot create", PLAN, "place", "--trace", trace, "--ranks", 4, "-o", "/proc/none/x")
    os.mkdir(f"{tmp}/mine")
    for name, content in (("thesis.txt", "years"), ("manifest.json", '{"name": "web page"}')):
        open(f"{tmp}/mine/{name}", "w", encoding="ascii").write(content)
        refused(1, "expected a checkpoint to replace", *base, "--checkpoint", f"{tmp}/mine", left=tmp)
    os.mkdir(f"{tmp}/disk")
    os.symlink("disk", f"{tmp}/link")
    for _ in range(2):
        must(*base, "--checkpoint", f"{tmp}/link")
        check(os.path.islink(f"{tmp}/link") and os.path.exists(f"{tmp}/disk/manifest.json"), "a link to the checkpoint's place stays one")
    shutil.rmtree(f"{tmp}/disk")
    refused(1, "cannot hold a checkpoint", *base, "--checkpoint", f"{tmp}/link")
    os.remove(f"{tmp}/link")
    for place in (data, "/dev/null"):
        refused(1, "cannot hold a checkpoint", *base, "--checkpoint", place, left=tmp)
    must(*base, "--checkpoint", f"{tmp}/a/b/")
    open(f"{tmp}/a/b/thesis.txt", "w", encoding="ascii").write("years")
    must(*base, "--checkpoint", f"{tmp}/a/b")
    kept = glob.glob(f"{tmp}/a/*/thesis.txt")
    check(len(kept) == 1 and os.path.exists(f"{tmp}/a/b/manifest.json"), f"a file among a replaced checkpoint's stays: {kept}")
    shutil.rmtree(f"{tmp}/a")
    shutil.rmtree(f"{tmp}/mine")


def full_disks(tmp, base, trace):
    for what in (["place", "--trace", trace, "--ranks", 4], ["replay", "--trace", trace, "--ranks", 4, "--json"]):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([str(BUILD / PLAN), *map(str, what)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        check(done.returncode == 3 and "writing failed" in done.stderr, f"{what} to a full disk: {done.returncode} {done.stderr!r}")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    long_run = [word if word != 2 else 400 for word in base]
    for option in ("--checkpoint", "--record-trace"):
        refused(3, "File too large", *long_run, "--ranks", 2, option, f"{tmp}/full", left=tmp, preexec_fn=limit)
    refused(3, "File too large", PLAN, "replay", "--trace", trace, "--ranks", 4, "--dump", f"{tmp}/full", left=tmp, preexec_fn=limit)
    for option in ("--log", "--dump"):
        refused(3, "File too large", *long_run, "--ranks", 2, option, f"{tmp}/full", preexec_fn=limit)
        lines = open(f"{tmp}/full", encoding="utf-8").read().split("\n")
        check(len(lines) > 3 and lines[-1] == "" and all(json.loads(line) for line in lines[:-1]), f"{option}: the lines that fit are whole")
        os.remove(f"{tmp}/full")


def endless(base):
    """Text without an end takes no more memory than a part of the machine's: the limit below is what fails first here."""
    if BUILD.name in ("asan", "tsan"):
        return check.skip("sanitizers need all of the address space")

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    done = subprocess.run([str(BUILD / TRAIN), *map(str, base[1:]), "--data", "/dev/zero"], capture_output=True, text=True, timeout=100, preexec_fn=limit)
    return check((done.returncode, done.stderr.count("\n")) in ((1, 1), (3, 1)) and "/dev/zero" in done.stderr, f"/dev/zero: {done.returncode} {done.stderr!r}")


def heed_signals():
    """Also where this test itself runs under nohup or in the background."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(tmp, base, *more):
    """A long run that has finished some steps."""
    process = subprocess.Popen([str(BUILD / base[0]), *map(str, base[1:]), "--steps", "1000000", "--ranks", "2", "--log", f"{tmp}/s.log", "--dump",
                                f"{tmp}/s.dump", "--record-trace", f"{tmp}/s.blt", "--checkpoint", f"{tmp}/s.saved", *map(str, more)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (os.path.exists(f"{tmp}/s.log") and open(f"{tmp}/s.log", encoding="utf-8").read().count("\n") > 5):
        time.sleep(0.02)
    return process


def end(process):
    try:
        out, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        check(False, "a signal does not end the run")
    return out, err


def clear(tmp):
    for path in glob.glob(f"{tmp}/s.*"):
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def signals(tmp, base):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = start(tmp, base)
        process.send_signal(number)
        out, err = end(process)
        names = sorted(os.path.basename(path) for path in glob.glob(f"{tmp}/s.*"))
        steps = len(read_log(f"{tmp}/s.log")[1])
        saved = json.load(open(f"{tmp}/s.saved/manifest.json", encoding="utf-8"))["step"]
        info = json.loads(must(TRACE, "info", f"{tmp}/s.blt", "--json"))
        check(process.returncode == 130 and f"stopped on request after step {steps}" in err and f"step {steps}," in out, f"{number!r}: {process.returncode} {err!r}")
        check(names == ["s.blt", "s.dump", "s.log", "s.saved"] and steps == saved == info["steps"] and not info["truncated"],
              f"{number!r}: {names}, {steps} steps in the log, {saved} saved, {info['steps']} in the trace")
        clear(tmp)
    for delay in (0, 0.001, 0.002, 0.004, 0.01):
        process = start(tmp, base, "--checkpoint-every", 1)
        process.send_signal(signal.SIGINT)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        end(process)
        left = [name for name in os.listdir(tmp) if ".tmp." in name]
        check(process.returncode == 130 and len(left) <= 1 and all(name.startswith("s.blt.tmp.") for name in left),
              f"Ctrl-C twice: {process.returncode}, left {left}, expected at most the unfinished trace")
        if os.path.exists(f"{tmp}/s.saved"):
            saved = json.load(open(f"{tmp}/s.saved/manifest.json", encoding="utf-8"))["step"]
            code, _, err = run(*base, "--ranks", 2, "--resume", f"{tmp}/s.saved", "--steps", saved + 2, "--record-trace", f"{tmp}/s.blt")
            check(code == 0, f"Ctrl-C twice: the checkpoint is whole: {err!r}")
            again = [name for name in os.listdir(tmp) if ".tmp." in name]
            steps = json.loads(must(TRACE, "info", f"{tmp}/s.blt", "--json"))["steps"]
            check(again == [] and steps == saved + 2, f"Ctrl-C twice: the trace is taken up: {steps} steps of {saved + 2}, left {again}")
        clear(tmp)


def one_log(tmp, base):
    process = start(tmp, base)
    for option in ("--log", "--dump"):
        refused(1, "is being written already", *base, option, f"{tmp}/s{option.replace('--', '.')}")
    process.send_signal(signal.SIGINT)
    end(process)
    header, steps = read_log(f"{tmp}/s.log")
    check([step["step"] for step in steps] == list(range(1, len(steps) + 1)) and "config" in header, "the first run's log is whole")
    process = subprocess.Popen([str(BUILD / TRAIN), "--resume", f"{tmp}/s.saved"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    check(process.communicate(timeout=30)[0] == "" and process.returncode == 2, "--resume needs --data")
    clear(tmp)


def killed(tmp, base):
    """What a killed run has written of log, dump and trace is taken up when its checkpoint goes on."""
    process = start(tmp, base, "--checkpoint-every", 2)
    process.kill()
    process.communicate()
    saved = json.load(open(f"{tmp}/s.saved/manifest.json", encoding="utf-8"))["step"]
    must(*base, "--ranks", 2, "--log", f"{tmp}/s.log", "--dump", f"{tmp}/s.dump", "--record-trace", f"{tmp}/s.blt", "--resume", f"{tmp}/s.saved",
         "--steps", saved + 3)
    info = json.loads(must(TRACE, "info", f"{tmp}/s.blt", "--json"))
    steps = [step["step"] for step in read_log(f"{tmp}/s.log")[1]]
    check(info["steps"] == saved + 3 and steps == list(range(1, saved + 4)), f"taken up: {info['steps']} steps in the trace, {len(steps)} in the log, {saved} + 3 trained")
    check([path for path in glob.glob(f"{tmp}/s.blt*")] == [f"{tmp}/s.blt"], "no left-over trace")
    clear(tmp)


with folder() as scratch:
    start_line = [TRAIN, "--model", write_model(f"{scratch}/model.json"), "--data", write_text(f"{scratch}/text", size=9000), "--batch", 4, "--steps", 2]
    recorded = f"{scratch}/recorded.blt"
    must(TRACE, "gen", "--experts", 8, "--ranks", 4, "--layers", 2, "--steps", 40, "-o", recorded)
    command_lines(scratch, start_line, recorded)
    uneven(start_line)
    outputs(scratch, start_line, recorded)
    full_disks(scratch, start_line, recorded)
    endless(start_line)
    signals(scratch, start_line)
    one_log(scratch, start_line)
    killed(scratch, start_line)
    check(sorted(os.listdir(scratch)) == ["model.json", "recorded.blt", "text"], f"left: {os.listdir(scratch)}")
sys.exit(check.end())
