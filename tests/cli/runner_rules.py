"""The test runner sees every way in which a test can fail, and leaves no process behind."""
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.programs import Check  # noqa: E402
import runner  # noqa: E402

check = Check()


def result_of(script, limit_s=20):
    result = runner.Result("release", "made up")
    output, code = runner.run_process(["bash", "-c", script], limit_s, dict(os.environ))
    runner.judge(result, output, code, limit_s)
    return result


def main():
    r = result_of("echo 3 passed, 0 failed, 0 skipped")
    check((r.passed, r.failed, r.skipped) == (3, 0, 0), "a passing test passes")
    r = result_of("echo 'SKIP: no data'; echo 2 passed, 0 failed, 1 skipped")
    check((r.passed, r.failed, r.skipped, r.reasons) == (2, 0, 1, ["no data"]), "a skip is counted with its reason")
    check(result_of("echo 1 passed, 0 failed, 1 skipped").reasons == ["no reason given"], "a silent skip is noted")
    check(result_of("echo 1 passed, 2 failed, 0 skipped; exit 1").failed == 2, "failures are counted")
    check(result_of("echo 1 passed, 0 failed, 0 skipped; exit 1").failed == 1, "the exit code counts")
    check(result_of("echo 1 passed, 1 failed, 0 skipped").notes, "an exit code 0 with failures is noted")
    check(result_of("true").failed == 1, "a missing sum line is a failure")
    check(result_of("echo 1 passed, 0 failed, 0 skipped; kill -SEGV $$").failed == 1, "a crash is a failure")
    start = time.monotonic()
    r = result_of("echo 1 passed, 0 failed, 0 skipped; sleep 60 & sleep 61", limit_s=1)
    check(r.failed == 1 and "longer than 1 s" in r.notes[0], "a time limit passed is a failure")
    check(time.monotonic() - start < 20, "the limit holds")
    r = result_of("sleep 62 & echo $! pid; echo 1 passed, 0 failed, 0 skipped")
    pid = int(r.output.split()[0])
    alive = Path(f"/proc/{pid}/stat")
    for _ in range(50):
        if not alive.exists() or alive.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        check(False, "what a test leaves running is ended")
    check(runner.time_limit(Path(runner.__file__)) == 600, "a test's own limit is read from its head")
    check(runner.time_limit(Path(__file__)) == runner.DEFAULT_LIMIT_S, "others have the usual limit")
    return check.end()


if __name__ == "__main__":
    sys.exit(main())
