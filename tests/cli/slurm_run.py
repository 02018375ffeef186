#!/usr/bin/env python3
"""The batch script under Debian's slurm-wlm, with a controller, a node and munge of the test's own: the same bits as with
threads, task N is rank N, a killed task ends the job, a job asked to stop leaves log and checkpoint.   time limit: 200 s"""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train_support.tools import BUILD, ROOT, Check, folder, losses, must, write_model, write_text  # noqa: E402

check = Check()
ENV = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin", BALLAST_TRAIN=str(BUILD / "ballast-train"))
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "sinfo")

CONFIGURATION = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={tmp}/munge.socket
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={node_port}
StateSaveLocation={tmp}/state
SlurmdSpoolDir={tmp}/spool
SlurmctldPidFile={tmp}/slurmctld.pid
SlurmdPidFile={tmp}/slurmd.pid
SlurmctldLogFile={tmp}/slurmctld.log
SlurmdLogFile={tmp}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def free_ports(n):
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def call(*command, timeout=60):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENV,
                          timeout=timeout, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout


def start_slurm(tmp):
    """The daemons; they stay in the test's process group and are ended by stop()."""
    for name in ("state", "spool"):
        os.mkdir(f"{tmp}/{name}")
    with open(f"{tmp}/munge.key", "wb") as file:
        file.write(os.urandom(1024))
    os.chmod(f"{tmp}/munge.key", 0o400)
    os.chmod(tmp, 0o755)
    port, node_port = free_ports(2)
    ENV["SLURM_CONF"] = f"{tmp}/slurm.conf"
    with open(ENV["SLURM_CONF"], "w", encoding="ascii") as file:
        file.write(CONFIGURATION.format(host=socket.gethostname().split(".")[0], tmp=tmp, port=port, node_port=node_port))
    commands = [["munged", "--foreground", "--force", f"--socket={tmp}/munge.socket", f"--key-file={tmp}/munge.key",
                 f"--pid-file={tmp}/munged.pid", f"--log-file={tmp}/munged.log", f"--seed-file={tmp}/munge.seed"],
                ["slurmctld", "-D"], ["slurmd", "-D"]]
    daemons = []
    for command in commands:
        daemons.append(subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL))
        time.sleep(1)
    for _ in range(40):
        if "idle" in call("sinfo", "-h", "-o", "%T")[1]:
            return daemons
        time.sleep(0.5)
    stop(daemons)
    return None


def stop(daemons):
    for daemon in reversed(daemons):
        daemon.terminate()
    for daemon in daemons:
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def submit(tmp, *arguments):
    code, out = call("sbatch", "--parsable", "--ntasks=4", f"--output={tmp}/job-%j", ROOT / "slurm/ballast-train.sbatch", *arguments)
    check(code == 0, f"sbatch: {out}")
    return out.strip()


def wait(job, tmp):
    """What the job wrote, once it has left the queue."""
    for _ in range(150):
        if not call("squeue", "-h", "-j", job, "-t", "all", "-o", "%T")[1].strip() in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
            break
        time.sleep(0.3)
    else:
        check(False, f"job {job} does not end")
        call("scancel", "-s", "KILL", job)
    try:
        return open(f"{tmp}/job-{job}", encoding="utf-8", errors="replace").read()
    except OSError:
        return ""


def tasks(log):
    """Process numbers of the ranks of the run that writes `log`, by the task's number."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0")
            values = dict(line.split(b"=", 1) for line in open(f"/proc/{entry}/environ", "rb").read().split(b"\0") if b"=" in line)
            if command[0] == ENV["BALLAST_TRAIN"].encode() and log.encode() in command:
                found[int(values[b"SLURM_PROCID"])] = int(entry)
        except (OSError, KeyError, ValueError):
            pass
    return found


def wait_for_steps(log):
    for _ in range(300):
        if os.path.exists(log) and sum(1 for _ in open(log, encoding="utf-8")) > 3:
            return
        time.sleep(0.1)
    check(False, f"{log}: no steps")


def jobs(tmp, base):
    whole = [*base, "--steps", 8, "--policy", "ballast", "--late-repair", 1.02]
    must("ballast-train", *whole, "--ranks", 4, "--log", f"{tmp}/threads.log")
    out = wait(submit(tmp, *whole, "--log", f"{tmp}/slurm.log"), tmp)
    check(os.path.exists(f"{tmp}/slurm.log") and losses(f"{tmp}/slurm.log") == losses(f"{tmp}/threads.log"), f"under Slurm: {out}")

    long = [*base, "--steps", 1000000, "--policy", "static"]
    log = f"{tmp}/killed.log"
    job = submit(tmp, *long, "--log", log)
    wait_for_steps(log)
    pids = tasks(log)
    check(sorted(pids) == [0, 1, 2, 3], f"the tasks of the job: {pids}")
    os.kill(pids[2], signal.SIGKILL)
    out = wait(job, tmp)
    check("rank 2: its process has ended" in out, f"task 2 killed: {out}")

    log = f"{tmp}/stopped.log"
    job = submit(tmp, *long, "--log", log, "--checkpoint", f"{tmp}/ck")
    wait_for_steps(log)
    call("scancel", "-s", "TERM", job)
    out = wait(job, tmp)
    check("stopped on request after step" in out and os.path.exists(f"{tmp}/ck/manifest.json"), f"asked to stop: {out}")


with folder() as tmp:
    missing = [name for name in PROGRAMS if not shutil.which(name, path=ENV["PATH"])]
    if missing:
        check.skip(f"no {missing[0]}: the batch script is not run (Debian: slurm-wlm, munge)")
    elif os.geteuid() != 0:
        check.skip("not root: no Slurm of its own, the batch script is not run")
    elif not os.path.exists(BUILD / "ballast-mpi.so"):
        check.skip("built without mpicc: the batch script is not run")
    else:
        started = start_slurm(tmp)
        if started is None:
            check.skip("Slurm's daemons do not start here: the batch script is not run")
        else:
            try:
                jobs(tmp, ["--model", write_model(f"{tmp}/tiny.json"), "--data", write_text(f"{tmp}/words.txt"), "--batch", 24])
            finally:
                stop(started)
sys.exit(check.end())
