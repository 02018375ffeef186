"""ballast-trace end to end on made-up traces: what it prints, its exit codes, bad input, full disks, signals."""
import csv
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.programs import Check  # noqa: E402

PROGRAM = os.path.join(os.environ.get("BL_BUILD", ROOT / "build/release"), "ballast-trace")
work = None

check = Check()


def run(*arguments, **options):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)


def refused(code, part, *arguments, **options):
    """The program fails with this code and one sentence that contains `part`, and prints no result."""
    result = run(*arguments, **options)
    lines = result.stderr.splitlines()
    check(result.returncode == code and len(lines) == 1 and part in lines[0] and lines[0].startswith("ballast-trace: ")
          and result.stdout == "", f"{arguments}: expected {code} and \"{part}\", found {result.returncode}: "
          f"{result.stderr!r} {result.stdout[:80]!r}")


def left():
    return sorted(p.name for p in work.iterdir())


def gen(path, *arguments):
    result = run("gen", "--layers", 2, "--experts", 8, "--ranks", 3, "--micro-batches", 2, "--steps", 5, "--stride", 10,
                 "--tokens", 100, "-o", path, *arguments)
    check(result.returncode == 0 and result.stderr == "" and result.stdout == "", f"gen: {result.stderr}")
    return path


def rows_of(path, *arguments):
    result = run("export", path, "--to", "csv", *arguments)
    check(result.returncode == 0, f"export: {result.stderr}")
    rows = list(csv.reader(io.StringIO(result.stdout)))
    return rows[0], [tuple(map(int, row)) for row in rows[1:]]


def check_gen():
    path = gen(work / "a.blt")
    heading, rows = rows_of(path)
    check(heading == ["step", "layer", "rank", "micro_batch"] + [f"e{e}" for e in range(8)], f"heading {heading}")
    places = [(1 + 10 * s, layer, rank, m) for s in range(5) for layer in range(2) for rank in range(3) for m in range(2)]
    check([row[:4] for row in rows] == places, "places of the rows")
    check(all(sum(row[4:]) == 200 and max(row[4:]) <= 100 for row in rows), "rows sum to tokens x top-k, none above tokens")
    check(rows_of(gen(work / "b.blt"))[1] == rows, "the same options give the same counts")
    check((work / "a.blt").read_bytes() == (work / "b.blt").read_bytes(), "and the same file")
    check(rows_of(gen(work / "b.blt", "--seed", 2))[1] != rows, "another seed gives others")
    check(rows_of(path, "--steps", "11:31")[1] == rows[12:48], "--steps takes iterations, inclusive")
    check(rows_of(path, "--steps", "31:")[1] == rows[36:], "--steps A:")
    gen(work / "b.blt", "--top-share", 0.36, "--tokens", 100000, "--live")
    stats = json.loads(run("stats", work / "b.blt", "--ranks", 4, "--json", "--lags", "1,4,9").stdout)
    check(abs(stats["all"]["top_share"] - 0.36) < 2e-3, f"top share {stats['all']['top_share']}")
    check(stats["micro_batches"] == "each" and stats["lags"] == [1, 4, 9], "a live trace: micro-batches one by one")
    check(stats["all"]["drift"][2] is None and stats["all"]["drift"][1] > stats["all"]["drift"][0], "drift over lags")
    table = run("stats", work / "b.blt", "--ranks", 4).stdout.splitlines()
    check(len(table) == 5 and table[1].split()[:3] == ["layer", "imbalance", "worst"] and table[-1].startswith("all"), table)
    info = json.loads(run("info", "--json", path).stdout)
    check((info["steps"], info["layers"], info["ranks"], info["micro_batches"], info["experts"], info["min_row_sum"],
           info["copies"], info["iteration_stride"], info["bytes"]) ==
          (5, 2, 3, 2, 8, 200, 5 * 12 * 200, 10, os.path.getsize(path)), f"info {info}")
    piped = subprocess.run(f"'{PROGRAM}' gen --steps 3 --layers 1 -o - > '{work}/piped.blt'", shell=True)
    check(piped.returncode == 0 and json.loads(run("info", "--json", work / "piped.blt").stdout)["steps"] == 3, "gen to a pipe")
    for name in ("a.blt", "b.blt", "piped.blt"):
        (work / name).unlink()


def check_usage():
    for arguments, part in ((("gen",), "--output is required"), (("gen", "-o", "x", "--zipf", 1, "--top-share", 0.4), "exclude"),
                            (("gen", "-o", "x", "--ranks", 0), "--ranks"), (("stats", "x", "--ranks", 0), "--ranks"),
                            (("stats", "x"), "--ranks is required"), (("stats", "x", "--ranks", 2, "--lags", "1,x"), "--lags"),
                            (("stats", "x", "--ranks", 2, "--lags", "0"), "--lags"), (("import", "x", "-o", "y"), "--from"),
                            (("import", "x", "--from", "nowhere", "-o", "y"), "--from"), (("export", "x"), "--to"),
                            (("inform",), "did you mean"), (("info",), "expected"), (("info", "a", "b"), "b")):
        refused(2, part, *arguments)
    for command in ("import", "export", "info", "stats", "gen"):
        result = run(command, "--help")
        check(result.returncode == 0 and f"ballast-trace {command}" in result.stdout, f"{command} --help")
    refused(1, "--steps", "export", gen(work / "u.blt"), "--to", "csv", "--steps", "2:10")
    refused(2, "--steps", "export", work / "u.blt", "--to", "csv", "--steps", "9:1")
    refused(1, "9 ranks for 8 experts", "stats", work / "u.blt", "--ranks", 9)
    refused(1, "top-9 of 8 experts", "gen", "--experts", 8, "--top-k", 9, "-o", work / "no.blt")
    refused(1, "top share", "gen", "--top-share", 0.6, "-o", work / "no.blt")
    (work / "u.blt").unlink()
    check(left() == [], f"left: {left()}")


def check_damaged():
    whole = gen(work / "whole.blt").read_bytes()
    bad = work / "bad.blt"
    read = [("info",), ("stats", "--ranks", "2"), ("export", "--to", "csv", "-o", str(work / "out.csv"))]
    for content, part in ((b"", "is empty"), (b"layer,rank\n1,2\n", "is not a .blt trace"), (whole[:40], "ends inside the header"),
                          (whole[:64], "no whole step"), (whole[:10] + b"x" + whole[11:], "header is damaged")):
        bad.write_bytes(content)
        for command in read:
            refused(1, part, *command, bad)
    for command in read:
        refused(1, "cannot open", *command, work / "absent.blt")
        refused(1, "regular file", *command, work)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 16
    bad.write_bytes(flipped)
    for command in read:
        refused(1, "damaged", *command, bad)
    check(not (work / "out.csv").exists(), "no partial CSV")
    bad.write_bytes(whole[:-20])
    result = run("info", "--json", bad)
    check(result.returncode == 0 and json.loads(result.stdout)["truncated"] and "cut short" in result.stderr, "a lost index is rebuilt")
    bad.write_bytes(whole[:len(whole) * 2 // 3])
    result = run("info", "--json", bad)
    info = json.loads(result.stdout)
    check(result.returncode == 0 and info["truncated"] and 0 < info["steps"] < 5, "read up to the last whole step")
    whole_rows = rows_of(work / "whole.blt")[1]
    check(rows_of(bad)[1] == whole_rows[:12 * info["steps"]], "the steps before the cut are sound")
    bad.unlink()
    (work / "whole.blt").unlink()
    check(left() == [], f"left: {left()}")


def check_import():
    folder = work / "text"
    folder.mkdir()
    target = work / "t.blt"
    command = ("import", "--from", "smartmoe", folder, "-o", target)
    refused(1, "holds no file", *command)
    refused(1, "cannot open the folder", "import", "--from", "smartmoe", work / "absent", "-o", target)
    good = "0:[[1.0, 3.0], [4.0, 0.0]]\n1:[[2.0, 2.0], [0.0, 4.0]]\n"
    for step in (5, 20):
        for rank in (0, 1):
            (folder / f"table_iter{step}_rank{rank}.log").write_text(good)
    (folder / "notes.txt").write_text("ignored")
    result = run(*command)
    check(result.returncode == 0 and "2 steps x 2 layers x 2 ranks x 2 micro-batches x 2 experts" in result.stderr, result.stderr)
    check(rows_of(target)[1][:4] == [(5, 0, 0, 0, 1, 3), (5, 0, 0, 1, 4, 0), (5, 0, 1, 0, 1, 3), (5, 0, 1, 1, 4, 0)], "rows")
    target.unlink()
    last = folder / "table_iter20_rank1.log"
    for text, part in ((good.replace("2.0, 2.0", "2.0, 3.0"), ":2: row 0 sums to 5, expected 4"),
                       (good.replace("3.0", "NaN"), ":1: row 0, entry 1 is NaN"), (good.replace("3.0", "-3.0"), ":1: row 0, entry 1 is negative"),
                       (good.replace("3.0", "3.5"), "is not whole"), (good.replace("3.0", "3e300"), "exponent"),
                       (good.replace("3.0", "4294967296.0"), "too large"), ("", "ends after 0 layers"), (good[:30], "found the end of the file"),
                       (good.replace("1:", "3:"), ":2: another layer"), ("PK\x03\x04", "table_iter20_rank1.log:1")):
        last.write_text(text)
        refused(1, part, *command)
    last.unlink()
    refused(1, "table_iter20_rank1.log is missing", *command)
    last.mkdir()
    refused(1, "Is a directory", *command)
    last.rmdir()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    check(left() == [], f"left: {left()}")


def small_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def check_outputs():
    trace = gen(work / "o.blt")
    refused(1, "cannot create", "gen", "-o", work / "no/folder/x.blt")
    refused(1, "folder", "gen", "-o", work)
    refused(3, "writing failed", "gen", "-o", work / "full.blt", preexec_fn=small_disk)
    refused(3, "writing failed", "export", trace, "--to", "csv", "-o", work / "full.csv", preexec_fn=small_disk)
    if os.path.exists("/dev/full"):
        refused(3, "/dev/full", "gen", "-o", "/dev/full")
        refused(3, "/dev/full", "export", trace, "--to", "csv", "-o", "/dev/full")
        for command in (("info", trace), ("stats", trace, "--ranks", 2), ("export", trace, "--to", "csv")):
            with open("/dev/full", "w") as full:
                result = subprocess.run([PROGRAM, *map(str, command)], stdout=full, stderr=subprocess.PIPE, text=True)
            check(result.returncode == 3 and "writing failed" in result.stderr,
                  f"{command[0]} to a full disk: {result.returncode} {result.stderr}")
    before = trace.read_bytes()
    refused(3, "writing failed", "gen", "-o", trace, preexec_fn=small_disk)
    check(trace.read_bytes() == before, "an older file stays when the new one fails")
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen([PROGRAM, "gen", "--steps", "100000", "-o", work / "stopped.blt"], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 30
        while len(left()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        check(len(left()) == 2, f"a temporary file while it runs: {left()}")
        process.send_signal(number)
        process.communicate(timeout=30)
        check(process.returncode == 128 + number, f"stopped by {number}: exit code {process.returncode}")
        check(left() == ["o.blt"], f"left: {left()}")
    trace.unlink()


def check_random_damage():
    """The programs themselves on damaged files: an exit code of theirs and a sentence, never a crash."""
    rng = random.Random(3)
    whole = gen(work / "r.blt").read_bytes()
    bad = work / "bad.blt"
    codes = set()
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        bad.write_bytes(content[:rng.randint(len(content) // 2, len(content))])
        result = run("stats", bad, "--ranks", 2)
        codes.add(result.returncode)
        check(result.returncode in (0, 1) and (result.returncode == 0 or len(result.stderr.splitlines()) in (1, 2)),
              f"damaged: {result.returncode} {result.stderr}")
    check(1 in codes, "some damage is refused")
    bad.unlink()
    (work / "r.blt").unlink()


def main():
    global work
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for part in (check_gen, check_usage, check_damaged, check_import, check_outputs, check_random_damage):
            part()
            check(left() == [], f"{part.__name__} left {left()}")
    return check.end()


if __name__ == "__main__":
    sys.exit(main())
