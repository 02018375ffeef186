#!/usr/bin/env python3
"""Stopping and going on: a resumed run is the uninterrupted one bit by bit, under every policy; on other ranks it agrees to
rounding; Ctrl-C finishes the step, leaves log, trace and checkpoint, and exits 130."""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import BUILD, Check, folder, losses, must, read_log, run, text_file, train, write_model  # noqa: E402

check = Check()


def relative(a, b):
    return max(abs(float(x) - float(y)) / float(y) for x, y in zip(a, b))


def strip_times(path):
    """The log without what a clock measured; the header without the command."""
    header, steps = read_log(path)
    for step in steps:
        for key in ("step_us", "tokens_per_s", "phases"):
            del step[key]
    return steps


def resumed_like_whole(tmp, base, policy):
    name = " ".join(map(str, policy))
    options = [*base, "--ranks", 4, "--slots", 4, "--policy", *policy, "--schedule-steps", 14]
    outputs = {k: [f"--{k}", f"{tmp}/{k}"] for k in ("log", "record-trace", "dump")}
    for k in outputs:
        if os.path.exists(f"{tmp}/{k}"):
            os.remove(f"{tmp}/{k}")
    shutil.rmtree(f"{tmp}/ck", ignore_errors=True)
    whole = [f"{tmp}/whole.log", f"{tmp}/whole.blt", f"{tmp}/whole.dump"]
    must("ballast-train", *options, "--steps", 14, "--log", whole[0], "--record-trace", whole[1], "--dump", whole[2])
    parts = [x for pair in outputs.values() for x in pair]
    must("ballast-train", *options, "--steps", 9, *parts, "--checkpoint", f"{tmp}/ck", "--checkpoint-every", 4)
    # Steps after the checkpoint's that an interrupted run may have left are dropped.
    with open(f"{tmp}/log", "a", encoding="ascii") as file:
        file.write('{"step":10,"loss":0}\n{"step":11,"lo')
    must("ballast-train", *options, "--steps", 14, *parts, "--resume", f"{tmp}/ck")
    check(strip_times(f"{tmp}/log") == strip_times(whole[0]), f"{name}: the resumed log differs")
    check(losses(f"{tmp}/log") == losses(whole[0]), f"{name}: the resumed losses differ")
    for mine, theirs in ((f"{tmp}/record-trace", whole[1]), (f"{tmp}/dump", whole[2])):
        check(open(mine, "rb").read() == open(theirs, "rb").read(), f"{name}: {os.path.basename(mine)} differs when resumed")


def settings_of_the_checkpoint(tmp, base):
    """What shapes the data's order comes from the checkpoint where the command line is silent; a log without lines gets a header."""
    bare = base[:base.index("--batch")]
    whole = train(f"{tmp}/whole", *bare, "--batch", 12, "--micro-batches", 2, "--steps", 6)
    must("ballast-train", *bare, "--batch", 12, "--micro-batches", 2, "--steps", 3, "--schedule-steps", 6, "--checkpoint", f"{tmp}/half")
    open(f"{tmp}/rest.log", "w", encoding="ascii").close()
    open(f"{tmp}/rest.blt", "w", encoding="ascii").close()
    must("ballast-train", *bare, "--steps", 6, "--resume", f"{tmp}/half", "--log", f"{tmp}/rest.log", "--record-trace", f"{tmp}/rest.blt")
    header, _ = read_log(f"{tmp}/rest.log")
    check("command" in header and header["config"]["batch"] == 12 and header["config"]["micro_batches"] == 2, f"header: {header}")
    check(losses(f"{tmp}/rest.log") == whole[3:], f"resumed without --batch: {losses(f'{tmp}/rest.log')} against {whole[3:]}")


def other_ranks(tmp, base):
    whole = train(f"{tmp}/whole", *base, "--steps", 12)
    must("ballast-train", *base, "--steps", 6, "--schedule-steps", 12, "--ranks", 4, "--policy", "smartmoe:2", "--warmup", 1,
         "--checkpoint", f"{tmp}/four")
    for ranks in (1, 2, 3):
        rest = train(f"{tmp}/rest{ranks}", *base, "--steps", 12, "--ranks", ranks, "--resume", f"{tmp}/four", "--policy", "static")
        check(len(rest) == 6 and relative(rest, whole[6:]) < 1e-4, f"resumed on {ranks} ranks: {rest} against {whole[6:]}")


def other_options(tmp, base):
    """Other slots or another lag: the weights go on, the policy begins anew and says so."""
    policy = ["--ranks", 4, "--policy", "ballast"]
    whole = train(f"{tmp}/options", *base, "--steps", 12, *policy)
    train(f"{tmp}/options", *base, "--steps", 6, "--schedule-steps", 12, "--warmup", 1, *policy, "--checkpoint", f"{tmp}/options.ck")
    for changed in (["--slots", 4], ["--lag", 3], ["--late-repair", 1.02]):
        code, _, err = run("ballast-train", *base, "--steps", 12, "--warmup", 1, *policy, *changed, "--resume", f"{tmp}/options.ck",
                           "--log", f"{tmp}/changed")
        check(code == 0 and "starts without memory" in err and err.count("\n") == 1, f"resumed with {changed}: exit {code}, {err}")
        check(relative(losses(f"{tmp}/changed"), whole[6:]) < 1e-5, f"resumed with {changed}: {losses(f'{tmp}/changed')} against {whole[6:]}")
        os.remove(f"{tmp}/changed")


def goes_on_as_it_was(tmp, base):
    """The schedule of the learning rate is the first run's unless another is given; another text is said."""
    first, ck = f"{tmp}/schedule", f"{tmp}/schedule.ck"
    train(first, *base, "--steps", 6, "--checkpoint", ck)
    manifest = json.load(open(f"{ck}/manifest.json", encoding="utf-8"))
    check(manifest["schedule_steps"] == 6, f"the manifest tells the schedule: {manifest}")

    def rates(*options):
        log = f"{tmp}/schedule.more"
        code, _, err = run("ballast-train", *base, "--steps", 9, "--resume", ck, "--log", log, *options)
        check(code == 0, f"resumed with {options}: {err}")
        steps = read_log(log)[1]
        os.remove(log)
        return [s["lr"] for s in steps], err

    lr, err = rates()
    check(lr == [1e-4] * 3 and err == "", f"the schedule has ended: {lr}, {err}")
    lr, err = rates("--schedule-steps", 9)
    check(lr[0] > 1e-4 and lr == sorted(lr, reverse=True) and err == "", f"another schedule: {lr}, {err}")
    with open(f"{tmp}/other", "wb") as file:
        file.write(b"another text, to be read in its place " * 400)
    lr, err = rates("--schedule-steps", 9, "--data", f"{tmp}/other")
    check("another text" in err and err.count("\n") == 1, f"another text: {err}")
    del manifest["schedule_steps"], manifest["warmup"], manifest["data_crc32"]
    with open(f"{ck}/manifest.json", "w", encoding="utf-8") as file:
        json.dump(manifest, file)
    lr, err = rates("--data", f"{tmp}/other")
    check(lr[0] > 1e-4 and err == "", f"an older checkpoint says neither: {lr}, {err}")


def interrupted(tmp, base, number):
    ck, log = f"{tmp}/int", f"{tmp}/int.log"
    shutil.rmtree(ck, ignore_errors=True)
    if os.path.exists(log):  # of an earlier signal: its lines would say that this run has begun
        os.remove(log)
    command = ["--ranks", "2", "--steps", "100000", "--policy", "ballast", "--log", log, "--record-trace", f"{tmp}/int.blt",
               "--checkpoint", ck]
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731  as a shell starts a background job
    process = subprocess.Popen([str(BUILD / "ballast-train"), *map(str, base), *command], stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, preexec_fn=ignore)
    for _ in range(600):
        time.sleep(0.05)
        if os.path.exists(log) and open(log, "rb").read().count(b"\n") > 5:
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    check(process.returncode == 130, f"signal {number}: exit {process.returncode}, {err}")
    check("stopped on request after step" in err, f"signal {number}: {err!r}")
    steps = read_log(log)[1]
    last = json.load(open(f"{ck}/manifest.json", encoding="utf-8"))["step"]
    check(steps and steps[-1]["step"] == last, f"signal {number}: the log ends at {steps[-1]['step']}, the checkpoint at {last}")
    info = must("ballast-trace", "info", f"{tmp}/int.blt")
    check(str(last) in info, f"signal {number}: the trace lacks step {last}: {info}")
    check(not [n for n in os.listdir(tmp) if ".tmp." in n], f"signal {number}: leaves {os.listdir(tmp)}")
    more = train(log, *base, "--ranks", 2, "--steps", last + 2, "--resume", ck)
    check(len(more) == last + 2, f"signal {number}: {len(more)} steps in the log after going on")


def killed(tmp, base, stop, linked):
    """Stopped without warning again and again, taken up from whatever checkpoint there is: log, dump and trace of a run that
    was never disturbed. `linked`: the trace is named by a symbolic link to another folder."""
    os.makedirs(f"{tmp}/elsewhere")
    if linked:
        open(f"{tmp}/elsewhere/real.blt", "w", encoding="ascii").close()
        os.symlink("elsewhere/real.blt", f"{tmp}/killed.blt")
    steps = 150 if BUILD.name == "release" else 30  # long enough to be stopped in
    options = [*base, "--ranks", 2, "--steps", steps, "--policy", "ballast", "--late-repair", 1.05]
    parts = [("--log", "log"), ("--dump", "dump"), ("--record-trace", "blt")]

    def files(name):
        return [x for option, ending in parts for x in (option, f"{tmp}/{name}.{ending}")]

    must("ballast-train", *options, *files("calm"))
    rng = random.Random(4)
    kills = 0
    for _ in range(60):
        resume = ["--resume", f"{tmp}/ck9"] if os.path.exists(f"{tmp}/ck9/manifest.json") else []
        command = [*options, *files("killed"), "--checkpoint", f"{tmp}/ck9", "--checkpoint-every", 5, *resume]
        process = subprocess.Popen([str(BUILD / "ballast-train"), *map(str, command)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        try:
            _, err = process.communicate(timeout=rng.uniform(0.05, 0.4) if kills < 12 else 200)
        except subprocess.TimeoutExpired:
            for number in stop:
                process.send_signal(number)
            process.communicate()
            kills += 1
            continue
        if not check(process.returncode == 0, f"taken up after {kills} kills: exit {process.returncode}, {err!r}"):
            return
        break
    check(kills > 0, "the run was never killed")
    check(strip_times(f"{tmp}/killed.log") == strip_times(f"{tmp}/calm.log"), f"the log after {kills} kills differs")
    for ending in ("dump", "blt"):
        same = open(f"{tmp}/killed.{ending}", "rb").read() == open(f"{tmp}/calm.{ending}", "rb").read()
        check(same, f"{ending} after {kills} times {stop} differs")
    check(os.path.islink(f"{tmp}/killed.blt") == linked, "a link becomes a file, or a file a link")
    for name in [n for n in os.listdir(tmp) if n.startswith(("killed", "calm", "ck9", "elsewhere"))]:
        shutil.rmtree(f"{tmp}/{name}") if os.path.isdir(f"{tmp}/{name}") and not os.path.islink(f"{tmp}/{name}") else os.remove(f"{tmp}/{name}")


def damaged(tmp, base):
    must("ballast-train", *base, "--steps", 2, "--ranks", 2, "--checkpoint", f"{tmp}/good")
    def refused(name, part, change):
        shutil.rmtree(f"{tmp}/bad", ignore_errors=True)
        shutil.copytree(f"{tmp}/good", f"{tmp}/bad")
        change(f"{tmp}/bad")
        code, _, err = run("ballast-train", *base, "--steps", 4, "--ranks", 2, "--resume", f"{tmp}/bad", "--log", f"{tmp}/bad.log")
        check(code == 1 and part in err and err.count("\n") == 1, f"{name}: exit {code}, {err!r}")
        check(not os.path.exists(f"{tmp}/bad.log"), f"{name}: leaves a log")

    def flip(path, at):
        with open(path, "r+b") as file:
            file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0x10]))

    def rewrite(path, old, new):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace(old, new))

    refused("no folder", "manifest.json", shutil.rmtree)
    refused("no manifest", "manifest.json", lambda d: os.remove(f"{d}/manifest.json"))
    refused("a flipped number", "damaged", lambda d: flip(f"{d}/rank-1.safetensors", -1000))
    refused("a flipped header", "damaged", lambda d: flip(f"{d}/rank-0.safetensors", 50))
    refused("a file cut short", "damaged", lambda d: os.truncate(f"{d}/rank-0.safetensors", 1000))
    refused("a lost file", "rank-1.safetensors", lambda d: os.remove(f"{d}/rank-1.safetensors"))
    refused("a flipped policy", "damaged", lambda d: flip(f"{d}/policy.bin", 20))
    refused("a way out of the folder", "plain file name", lambda d: rewrite(f"{d}/manifest.json", "policy.bin", "../good/policy.bin"))
    refused("an unknown key", "manifest.json", lambda d: rewrite(f"{d}/manifest.json", '"seed"', '"sead"'))
    other = write_model(f"{tmp}/other.json", moe__width=64)
    code, _, err = run("ballast-train", "--model", other, *base[2:], "--steps", 4, "--ranks", 2, "--resume", f"{tmp}/good")
    check(code == 1 and "moe.width" in err, f"another model: exit {code}, {err!r}")
    os.makedirs(f"{tmp}/notes")
    open(f"{tmp}/notes/mine.txt", "w", encoding="ascii").close()
    code, _, err = run("ballast-train", *base, "--steps", 1, "--checkpoint", f"{tmp}/notes")
    check(code == 1 and "expected a checkpoint to replace" in err and os.listdir(f"{tmp}/notes") == ["mine.txt"], f"a folder of others: {err!r}")


with folder() as tmp:
    base = ["--model", write_model(f"{tmp}/tiny.json"), "--data", text_file(tmp), "--batch", 24]
    for policy in (["static"], ["smartmoe:3"], ["eplb:2"], ["ballast", "--late-repair", 1.02], ["ballast", "--homes", "free"]):
        resumed_like_whole(tmp, base, policy)
    other_ranks(tmp, base)
    other_options(tmp, base)
    goes_on_as_it_was(tmp, base)
    settings_of_the_checkpoint(tmp, base)
    for number in (signal.SIGINT, signal.SIGTERM):
        interrupted(tmp, base, number)
    killed(tmp, base, [signal.SIGKILL], linked=False)
    killed(tmp, base, [signal.SIGKILL], linked=True)
    killed(tmp, base, [signal.SIGINT, signal.SIGTERM], linked=False)  # the second of two requests ends at once
    damaged(tmp, base)
sys.exit(check.end())
