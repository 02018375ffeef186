#!/usr/bin/env python3
"""Ranks as processes (--transport mpi): the same bits as threads in log, dump, trace and checkpoint; going on from either;
ranks that were given different things, that fail, die, hang or are stopped.
time limit: 400 s"""
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import BUILD, Check, folder, losses, must, read_log, run, write_model, write_text  # noqa: E402

check = Check()
ENV = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
TRAIN = [str(BUILD / "ballast-train"), "--transport", "mpi"]


def launch(*parts):
    """mpirun of one or more groups of processes: each is (how many, arguments)."""
    command = ["mpirun", "--oversubscribe"]
    for number, arguments in parts:
        command += ([":"] if len(command) > 2 else []) + ["-np", str(number), *TRAIN, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV, start_new_session=True)


def finish(process, timeout=100):
    """Exit code, stdout, what our programs said on stderr, and all of stderr."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        check(False, f"a run of processes hangs: {err}")
        return None, out, [], err
    return process.returncode, out, [line for line in err.splitlines() if line.startswith("ballast-train: ")], err


def mpi(ranks, *arguments):
    code, _, said, err = finish(launch((ranks, arguments)))
    check(code == 0 and not said, f"{ranks} processes {arguments}: exit {code}, {err}")


def refused(expected, code, *parts, others=()):
    found, out, said, err = finish(launch(*parts))
    check(found == code, f"{expected}: exit {found}, expected {code}")
    check(len(said) == 1 and expected in said[0], f"expected one line with \"{expected}\", found {said or err}")
    check(out == "", f"{expected}: found on standard output: {out}")


def same_outputs(a, b, what):
    check(losses(f"{a}.log") == losses(f"{b}.log") and len(losses(f"{a}.log")) > 0, f"{what}: other losses")
    for part in ("dump", "blt"):
        check(filecmp.cmp(f"{a}.{part}", f"{b}.{part}", shallow=False), f"{what}: another {part}")
    names = sorted(os.listdir(f"{a}.ck"))
    check(names == sorted(os.listdir(f"{b}.ck")), f"{what}: other files in the checkpoint: {names}")
    for name in names:
        check(filecmp.cmp(f"{a}.ck/{name}", f"{b}.ck/{name}", shallow=False), f"{what}: another {name}")


def outputs(name):
    return ["--log", f"{name}.log", "--dump", f"{name}.dump", "--record-trace", f"{name}.blt", "--checkpoint", f"{name}.ck"]


def equal(tmp, base):
    for ranks, policy in ((4, ["ballast", "--late-repair", 1.02]), (4, ["smartmoe:2"]), (3, ["eplb:3"]), (2, ["fastermoe"])):
        options = [*base, "--steps", 8, "--micro-batches", 2, "--policy", *policy]
        a, b = f"{tmp}/threads", f"{tmp}/mpi"
        must("ballast-train", *options, "--ranks", ranks, *outputs(a))
        mpi(ranks, *options, *outputs(b))
        same_outputs(a, b, f"{policy[0]} on {ranks} ranks")
    check(read_log(f"{b}.log")[0]["config"]["transport"] == "mpi", "the log names another transport")
    gshard = [*base, "--steps", 4, "--gate", "gshard", "--policy", "ballast"]
    must("ballast-train", *gshard, "--ranks", 2, "--log", f"{tmp}/g1.log")
    mpi(2, *gshard, "--log", f"{tmp}/g2.log")
    check(losses(f"{tmp}/g1.log") == losses(f"{tmp}/g2.log"), "gshard: other losses")


def going_on(tmp, base):
    """Half a run with threads and half with processes, either way, is the whole run."""
    options = [*base, "--schedule-steps", 10, "--policy", "ballast", "--late-repair", 1.02]
    whole, a, b = f"{tmp}/whole", f"{tmp}/first", f"{tmp}/second"
    must("ballast-train", *options, "--ranks", 4, "--steps", 10, *outputs(whole))
    must("ballast-train", *options, "--ranks", 4, "--steps", 5, *outputs(a))
    mpi(4, *options, "--steps", 10, "--resume", f"{a}.ck", *outputs(a))
    same_outputs(whole, a, "threads, then processes")
    mpi(4, *options, "--steps", 5, "--checkpoint-every", 2, *outputs(b))
    must("ballast-train", *options, "--ranks", 4, "--steps", 10, "--resume", f"{b}.ck", *outputs(b))
    same_outputs(whole, b, "processes, then threads")
    code, _, said, err = finish(launch((2, [*options, "--steps", 12, "--resume", f"{a}.ck", "--log", f"{tmp}/two.log"])))
    check(code == 0 and len(losses(f"{tmp}/two.log")) == 2, f"no going on with 2 processes from 4: {err}")
    check(len(said) == 1 and "starts without memory" in said[0], f"what is said once a run is said once: {said}")


def one_result(tmp, base):
    process = launch((2, [*base, "--steps", 3, "--policy", "static"]))
    code, out, _, err = finish(process)
    check(code == 0 and len(out.splitlines()) == 1 and out.startswith("step 3, loss "), f"the result: {out} {err}")
    code, out, err = run("ballast-train", "--transport", "mpi", *base, "--steps", 2, env=ENV)
    check(code == 0 and out.startswith("step 2, loss "), f"one process without mpirun: exit {code}, {out} {err}")


def different(tmp, base):
    model, data = base[1], base[3]
    refused("rank 2 differs from rank 0 in --batch", 1, (2, [*base, "--steps", 3]), (1, [*base, "--steps", 3, "--batch", 48]))
    refused("rank 1 differs from rank 0 in --policy", 1, (1, [*base, "--steps", 3]), (1, [*base, "--steps", 3, "--policy", "static"]))
    other = f"{tmp}/other.txt"
    shutil.copy(data, other)
    with open(other, "a", encoding="ascii") as file:
        file.write("more")
    refused("rank 1 differs from rank 0 in --data", 1, (1, [*base, "--steps", 3]),
            (1, ["--model", model, "--data", other, "--batch", 24, "--steps", 3]))
    must("ballast-trace", "gen", "--experts", 8, "--ranks", 2, "--layers", 2, "--steps", 5, "--seed", 1, "-o", f"{tmp}/t.blt")
    for name in ("a", "b"):
        must("ballast-plan", "place", "--trace", f"{tmp}/t.blt", "--ranks", 2, "--slots", 5, "-o", f"{tmp}/{name}.json")
    plan = json.load(open(f"{tmp}/b.json", encoding="utf-8"))
    home = plan["placement"]["layers"][0]["home"]
    first, last = home.index(0), home.index(1)
    home[first], home[last] = 1, 0
    plan["placement"]["layers"][0]["copies"] = []
    json.dump(plan, open(f"{tmp}/b.json", "w", encoding="utf-8"))
    refused("rank 1 differs from rank 0 in --plan", 1, *((1, [*base, "--steps", 3, "--plan", f"{tmp}/{n}.json"]) for n in "ab"))
    changed = f"{tmp}/changed"
    os.mkdir(changed)
    for name in ("ballast-train", "ballast-mpi.so"):
        shutil.copy(BUILD / name, changed)
    with open(f"{changed}/ballast-train", "ab") as file:
        file.write(b"x")
    command = ["mpirun", "--oversubscribe", "-np", "1", *TRAIN, *map(str, base), "--steps", "3", ":", "-np", "1",
               f"{changed}/ballast-train", "--transport", "mpi", *map(str, base), "--steps", "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV, start_new_session=True)
    code, _, said, err = finish(process)
    check(code == 1 and len(said) == 1 and "rank 1 differs from rank 0 in the build" in said[0], f"builds: {code} {said or err}")
    refused("--ranks 4: expected as many processes, found 2", 2, (2, [*base, "--steps", 3, "--ranks", 4]))
    refused("is for 2 ranks: expected as many processes, found 3", 2, (3, [*base, "--steps", 3, "--plan", f"{tmp}/a.json"]))
    refused("nowhere", 1, (2, ["--data", "/nowhere", "--steps", 3]))
    refused("nowhere", 1, (1, [*base, "--steps", 3]), (1, [*base, "--steps", 3, "--model", "/nowhere"]))


def failing(tmp, base):
    log = f"{tmp}/failing.log"
    must("ballast-trace", "gen", "--experts", 16, "--ranks", 2, "--layers", 2, "--steps", 5, "--seed", 1, "-o", f"{tmp}/t16.blt")
    refused("experts", 1, (4, [*base, "--steps", 3, "--gate", f"trace:{tmp}/t16.blt"]))  # all fail alike: one says so
    refused("/dev/full", 3, (4, [*base, "--steps", 3, "--log", "/dev/full"]))
    os.mkdir(f"{tmp}/occupied")
    open(f"{tmp}/occupied/file", "w", encoding="ascii").close()
    refused("expected a checkpoint to replace", 1, (2, [*base, "--steps", 3, "--log", log, "--checkpoint", f"{tmp}/occupied"]))
    check(not os.path.exists(log), "a run that could not start left a log")


def ranks_of(process):
    """Process numbers of the ranks, by rank."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
            if parent == process.pid:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    values = dict(line.split(b"=", 1) for line in file.read().split(b"\0") if b"=" in line)
                found[int(values[b"OMPI_COMM_WORLD_RANK"])] = int(entry)
        except (OSError, ValueError, KeyError, IndexError):
            pass
    return found


def running(ranks, log, *arguments):
    """A run that has made at least three steps, and its processes."""
    process = launch((ranks, [*arguments, "--steps", 100000, "--log", log]))
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if os.path.exists(log) and sum(1 for _ in open(log, encoding="utf-8")) > 3:
            break
        time.sleep(0.02)
    pids = ranks_of(process)
    check(len(pids) == ranks, f"{ranks} processes are running: {pids}")
    return process, pids


def disturbed(tmp, base):
    # killed: all end at once, one of them says who is gone
    process, pids = running(4, f"{tmp}/killed.log", *base)
    start = time.monotonic()
    os.kill(pids[2], signal.SIGKILL)
    code, _, said, err = finish(process)
    check(code not in (0, None) and time.monotonic() - start < 20, f"a killed rank: exit {code}")
    check("rank 2" in err and all("rank 2: its process has ended" in line for line in said), f"a killed rank: {err}")
    for line in open(f"{tmp}/killed.log", encoding="utf-8"):
        json.loads(line)
    # standing still: the deadline
    process, pids = running(3, f"{tmp}/still.log", *base, "--deadline", 1)
    os.kill(pids[1], signal.SIGSTOP)
    code, _, said, err = finish(process)
    check(code == 3, f"a rank that stands still: exit {code}")
    check(len(said) == 1 and "rank 1: was not heard of within 1 s" in said[0], f"a rank that stands still: {said or err}")
    # all stopped for longer than the deadline: nothing is lost
    process, pids = running(3, f"{tmp}/all.log", *base, "--deadline", 1)
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2.5)
    for pid in pids.values():
        os.kill(pid, signal.SIGCONT)
    before = len(losses(f"{tmp}/all.log"))
    time.sleep(1)
    os.kill(pids[1], signal.SIGTERM)
    code, out, said, err = finish(process)
    check(code == 130 and len(losses(f"{tmp}/all.log")) > before, f"stopped and continued: exit {code}, {err}")
    # one rank is asked to stop: all finish the step, one says so
    check(len(said) == 1 and "stopped on request after step" in said[0], f"asked to stop: {said or err}")
    check(out.startswith("step ") and len(out.splitlines()) == 1, f"asked to stop: {out}")


def threads_stand_still(tmp, base):
    """What holds for processes holds for threads: a run stopped as a whole has not waited."""
    log = f"{tmp}/threads.log"
    process = subprocess.Popen([str(BUILD / "ballast-train"), *map(str, base), "--ranks", "3", "--steps", "100000", "--log", log,
                                "--deadline", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for _ in range(3):
        time.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=60)[1]
    check(process.returncode == 130, f"threads, stopped and continued: exit {process.returncode}, {err}")


def without_mpi(tmp, base):
    """The program without the library beside it, and with one whose MPI is not on the machine."""
    alone = f"{tmp}/alone"
    os.mkdir(alone)
    shutil.copy(BUILD / "ballast-train", alone)
    program = f"{alone}/ballast-train"
    for transport, code, words in (("threads", 0, None), ("mpi", 1, "this build has no mpi transport")):
        found, _, err = run(program, *base, "--steps", 1, "--transport", transport)
        check(found == code and (words is None or words in err and err.count("\n") == 1), f"without MPI, {transport}: {found} {err}")
    with open(f"{alone}/nothing.c", "w", encoding="ascii") as file:
        file.write("int nothing_here(void) { return 0; }")
    with open(f"{alone}/needs.c", "w", encoding="ascii") as file:
        file.write("int nothing_here(void); int needs(void) { return nothing_here(); }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", f"{alone}/libmpinothing.so", f"{alone}/nothing.c"], check=True)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", f"{alone}/ballast-mpi.so", f"{alone}/needs.c", f"-L{alone}", "-lmpinothing"], check=True)
    os.remove(f"{alone}/libmpinothing.so")
    code, _, err = run(program, *base, "--steps", 1, "--transport", "mpi")
    check(code == 3 and "MPI cannot be loaded: libmpinothing.so" in err and err.count("\n") == 1, f"MPI missing: {code} {err}")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", f"{alone}/ballast-mpi.so", f"{alone}/nothing.c"], check=True)
    code, _, err = run(program, *base, "--steps", 1, "--transport", "mpi")
    check(code == 3 and "is not of this build" in err, f"another library of the name: {code} {err}")


with folder() as tmp:
    base = ["--model", write_model(f"{tmp}/tiny.json"), "--data", write_text(f"{tmp}/words.txt"), "--batch", 24]
    threads_stand_still(tmp, base)
    without_mpi(tmp, base)
    if not shutil.which("mpirun"):
        check.skip("no mpirun: ranks as processes are not run")
    elif not os.path.exists(BUILD / "ballast-mpi.so"):
        check.skip("built without mpicc: ranks as processes are not run")
    else:
        equal(tmp, base)
        going_on(tmp, base)
        one_result(tmp, base)
        different(tmp, base)
        failing(tmp, base)
        disturbed(tmp, base)
sys.exit(check.end())
