"""Builds the variants and runs every test as a process of its own with a time limit; tests/run starts it.

A test is a C program (tests/unit, tests/exec) or a script (tests/cli/*.py, *.sh; not those that begin with _). It ends
with a line "N passed, N failed, N skipped", prints "SKIP: reason" for what it skips, and exits 0 only when nothing
failed. It runs in the repository's root with

  BL_BUILD       the folder of the programs under test, such as build/release (absolute)
  BL_TEST_SMALL  1 in sanitizer variants, which are slow: take small sizes
  BL_TEST_QUICK  1 with --quick
  TMPDIR         a folder of its own, removed afterwards

A script that may take longer than five minutes says so in one of its first 20 lines: "time limit: 600 s".
Scripts run in the release variant; C tests in release and asan (address and undefined behaviour), those of tests/exec
in tsan (threads) too.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUM_LINE = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped\s*$", re.M)
SKIP_LINE = re.compile(r"^\s*SKIP(?:PED)?\b[: ]\s*(.*\S)", re.M | re.I)
DEFAULT_LIMIT_S = 300
SANITIZER_FACTOR = 2  # a sanitizer's time limit


class Result:
    def __init__(self, variant, name):
        self.variant, self.name = variant, name
        self.passed = self.failed = self.skipped = 0
        self.seconds = 0.0
        self.notes, self.reasons, self.output = [], [], ""


def run_process(command, limit_s, env):
    """Output and exit code (None when the limit passed); the whole process group ends with it."""
    with tempfile.TemporaryFile() as sink:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=sink,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        try:
            os.killpg(process.pid, signal.SIGKILL)  # also what a finished test has left running
        except ProcessLookupError:
            pass
        process.wait()
        sink.seek(0)
        return sink.read().decode("utf-8", "replace"), code


def judge(result, output, code, limit_s):
    sums = SUM_LINE.findall(output)
    result.output = output
    if sums:
        result.passed, result.failed, result.skipped = (int(n) for n in sums[-1])
    if code is None:
        result.notes.append(f"took longer than {limit_s} s")
    elif code < 0:
        result.notes.append(f"killed by signal {-code}")
    elif not sums:
        result.notes.append(f"no sum line (exit code {code})")
    elif code != 0 and result.failed == 0:
        result.notes.append(f"exit code {code} although nothing failed")
    elif code == 0 and result.failed > 0:
        result.notes.append("exit code 0 although something failed")
    if result.notes and result.failed == 0:
        result.failed = 1
    result.reasons = SKIP_LINE.findall(output)
    if result.skipped > 0 and not result.reasons:
        result.reasons = ["no reason given"]


def time_limit(path):
    try:
        with open(path, encoding="utf-8") as f:
            head = "".join(next(f, "") for _ in range(20))
    except (OSError, UnicodeDecodeError):
        return DEFAULT_LIMIT_S
    found = re.search(r"time limit: (\d+) s\b", head)
    return int(found.group(1)) if found else DEFAULT_LIMIT_S


def keeps_addresses():
    """["setarch", "-R"] where it works: the thread sanitizer cannot start under some kernels' random addresses."""
    try:
        subprocess.run(["setarch", "-R", "true"], check=True, capture_output=True, timeout=10)
        return ["setarch", "-R"]
    except (OSError, subprocess.SubprocessError):
        return []


def run_test(variant, source, quick):
    name = str(source.relative_to(ROOT / "tests").with_suffix("")) if source.suffix == ".c" else \
        str(source.relative_to(ROOT / "tests"))
    result = Result(variant, name)
    build = ROOT / "build" / variant
    limit_s = time_limit(source)
    if source.suffix == ".c":
        command = [str(build / source.relative_to(ROOT).with_suffix(""))]
    elif source.suffix == ".py":
        command = ["/usr/bin/python3", "-B", str(source)]
    else:
        command = ["bash", str(source)]
    env = dict(os.environ, BL_BUILD=str(build), LC_ALL="C.UTF-8", PYTHONDONTWRITEBYTECODE="1", MPLBACKEND="Agg",
               ASAN_OPTIONS="allocator_may_return_null=1:detect_stack_use_after_return=1",
               UBSAN_OPTIONS="print_stacktrace=1", TSAN_OPTIONS="allocator_may_return_null=1:second_deadlock_stack=1")
    env.pop("BL_TEST_SMALL", None)
    env.pop("BL_TEST_QUICK", None)
    if quick:
        env["BL_TEST_QUICK"] = "1"
    if variant != "release":
        env["BL_TEST_SMALL"] = "1"
        limit_s *= SANITIZER_FACTOR
    if variant == "tsan":
        command = keeps_addresses() + command
    env["TMPDIR"] = tempfile.mkdtemp(prefix="ballast-test-")
    start = time.monotonic()
    try:
        output, code = run_process(command, limit_s, env)
        judge(result, output, code, limit_s)
    except OSError as error:
        result.failed = 1
        result.notes.append(f"cannot be started: {error}")
    finally:
        shutil.rmtree(env["TMPDIR"], ignore_errors=True)
    result.seconds = time.monotonic() - start
    return result


def build(variant, targets, jobs):
    print(f"tests/run: building {variant}", flush=True)
    result = Result(variant, "build")
    start = time.monotonic()
    process = subprocess.run(["make", f"-j{jobs}", "-k", "--no-print-directory", f"VARIANT={variant}"] + targets, cwd=ROOT,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             errors="replace")
    result.seconds = time.monotonic() - start
    if process.returncode != 0:
        result.failed = 1
        result.notes.append("does not build")
        lines = process.stdout.splitlines()
        result.output = "\n".join(line for line in lines if not line.startswith(("cc ", "gcc ")))
    return result


def find_tests(pattern):
    units = sorted((ROOT / "tests/unit").glob("test_*.c")) + sorted((ROOT / "tests/unit").glob("milp_*.c"))
    execs = sorted((ROOT / "tests/exec").glob("test_*.c"))
    scripts = sorted(p for p in (ROOT / "tests/cli").glob("*") if p.suffix in (".py", ".sh") and p.name[0] != "_")
    if pattern:
        wanted = [[p for p in group if pattern in str(p.relative_to(ROOT))] for group in (units, execs, scripts)]
        return tuple(wanted)
    return units, execs, scripts


def print_failures(results):
    for r in results:
        if not r.failed:
            continue
        print(f"\nFAILED {r.name} ({r.variant}){': ' if r.notes else ''}{'; '.join(r.notes)}")
        lines = r.output.splitlines()
        if len(lines) > 60:
            lines = lines[:15] + ["..."] + lines[-45:]
        for line in lines:
            print("  | " + line)


def print_table(results):
    width = max(len(r.name) for r in results)
    print(f"\n{'test':<{width}}  variant  passed  failed  skipped  seconds")
    for r in results:
        print(f"{r.name:<{width}}  {r.variant:<7}  {r.passed:6d}  {r.failed:6d}  {r.skipped:7d}  {r.seconds:7.1f}"
              f"{'  FAILED' if r.failed else ''}")


def print_skips(results):
    skipping = [r for r in results if r.skipped]
    if skipping:
        print("\nskipped:")
    for r in skipping:
        for reason in dict.fromkeys(r.reasons):
            print(f"  {r.name} ({r.variant}): {reason}")


def run_variant(variant, targets, sources, options, jobs):
    if not sources:
        return []
    results = [build(variant, targets, jobs)]
    print(f"tests/run: running {len(sources)} tests, {variant}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_test, variant, source, options.quick) for source in sources]
        results += [future.result() for future in futures]
    return results


def main():
    parser = argparse.ArgumentParser(prog="tests/run", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the release variant alone; tests take small sizes")
    parser.add_argument("pattern", nargs="?", default="", help="only tests with this text in their path")
    options = parser.parse_args()
    jobs = max(1, len(os.sched_getaffinity(0)))
    units, execs, scripts = find_tests(options.pattern)
    start = time.monotonic()
    results = run_variant("release", ["all", "tests"], units + execs + scripts, options, jobs)
    if not options.quick:
        results += run_variant("asan", ["tests"], units + execs, options, jobs)
        results += run_variant("tsan", ["tests"], execs, options, jobs)
    if not results:
        print(f"tests/run: no test has \"{options.pattern}\" in its path")
        print("0 passed, 1 failed, 0 skipped")
        return 1
    print_failures(results)
    print_table(results)
    print_skips(results)
    passed, failed, skipped = (sum(getattr(r, what) for r in results) for what in ("passed", "failed", "skipped"))
    print(f"\n{len(results)} rows, {time.monotonic() - start:.0f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
