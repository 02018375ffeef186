# shellcheck shell=bash
# check.sh - what tests written in bash share: counting checks and skips, the closing line. Read it with
# `. tests/support/check.sh` from the project's root, where tests/run starts every test.
set -u
passed=0 failed=0 skipped=0

check() { # WORDS COMMAND...
  local words=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: $words"
  fi
}

skip() { # REASON
  skipped=$((skipped + 1))
  echo "SKIP: $1"
}

does_not() { ! "$@"; }

finish() { # ends the test
  echo "$passed passed, $failed failed, $skipped skipped"
  [ $failed = 0 ]
  exit
}
