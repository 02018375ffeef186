#!/usr/bin/env bash
# setup.sh - makes a Debian or Ubuntu machine ready for Ballast: installs what is missing and nothing else.
#
# Looks for each thing itself, not for its package, so what came another way counts too; run again, it finds everything
# in place and touches neither network nor packages. Needs root or a sudo that asks no password; never waits at a prompt.
#
#   ./setup.sh          install what is missing
#   ./setup.sh --mpi    also Open MPI, for training in several processes (tests/run asks for it)
#   ./setup.sh --check  install nothing, say what is missing
#
# Exit code 0: all that is needed is here. 1: something needed is missing. 2: wrong usage.
set -u
export LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a APT_LISTCHANGES_FRONTEND=none

say() { echo "setup: $*"; }

check_only=0 with_mpi=0
for argument in "$@"; do
  case $argument in
  --check) check_only=1 ;;
  --mpi) with_mpi=1 ;;
  -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "setup.sh: unknown option $argument (setup.sh --help shows how)" >&2; exit 2 ;;
  esac
done

has_command() { command -v "$1" >/dev/null 2>&1; }
has_header() { has_command gcc && echo "#include <$1>" | gcc -E -x c - >/dev/null 2>&1; }
has_library() { has_header "$1" && echo 'int main(void){return 0;}' | gcc -x c - -o /dev/null "$2" >/dev/null 2>&1; }
has_module() { /usr/bin/python3 -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('$1'))" >/dev/null 2>&1; }

# One line a thing: whether Ballast cannot do without it, Debian's package, what it is for, how it is recognised.
things() {
  cat <<'LIST'
needed build-essential    compiler_and_make            has_command gcc && has_command g++ && has_command make
needed zlib1g-dev         compressed_traces            has_library zlib.h -lz
needed libcjson-dev       plan_files                   has_library cjson/cJSON.h -lcjson
wanted libglpk-dev        proofs_by_place_--prove      has_library glpk.h -lglpk
wanted libopenblas-dev    fast_training_on_the_CPU     has_library cblas.h -lopenblas
needed python3            tests_and_figures            test -x /usr/bin/python3
needed python3-numpy      tests_and_figures            has_module numpy
needed python3-matplotlib figures                      has_module matplotlib
wanted dict-gcide         English_text_to_train_on     test -r /usr/share/dictd/gcide.dict.dz
LIST
  if [ $with_mpi = 1 ]; then
    echo "wanted libopenmpi-dev     several_processes            has_command mpicc"
    echo "wanted openmpi-bin        several_processes            has_command mpirun"
  fi
}

# Fills the array `missing` with "needed PACKAGE PURPOSE" for what is not there.
look() {
  missing=()
  local kind package purpose probe
  while read -r kind package purpose probe; do
    eval "$probe" || missing+=("$kind $package $purpose")
  done <<<"$(things)"
}

look
if [ ${#missing[@]} = 0 ]; then
  say "everything is in place"
  exit 0
fi
packages=()
for line in "${missing[@]}"; do
  read -r kind package purpose <<<"$line"
  say "missing ($kind): $package, for ${purpose//_/ }"
  packages+=("$package")
done

install() {
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if ! { has_command sudo && sudo -n true 2>/dev/null; }; then
      say "not root, and sudo wants a password: run   sudo $0   first"
      return 1
    fi
    as_root=(sudo -n --preserve-env=DEBIAN_FRONTEND,NEEDRESTART_MODE,APT_LISTCHANGES_FRONTEND)
  fi
  if ! has_command apt-get; then
    say "this system has no apt-get: install the counterparts of ${packages[*]} its own way"
    return 1
  fi
  local apt=("${as_root[@]}" apt-get -q -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=300
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)
  say "reading the package lists (apt-get update)"
  # A broken list of another repository does not matter when the packages are found all the same.
  "${apt[@]}" update </dev/null >/dev/null || say "apt-get update complained; going on"
  say "installing: ${packages[*]} (a few minutes)"
  local log
  log=$(mktemp) || return 1
  if "${apt[@]}" install -y --no-install-recommends "${packages[@]}" </dev/null >"$log" 2>&1; then
    rm -f "$log"
    return 0
  fi
  tail -20 "$log"
  say "that failed; trying one by one"
  local package
  for package in "${packages[@]}"; do
    "${apt[@]}" install -y --no-install-recommends "$package" </dev/null >"$log" 2>&1 && continue
    grep '^E:' "$log" | tail -1
    say "could not install $package"
  done
  rm -f "$log"
}

[ $check_only = 1 ] || install
look
status=0
for line in "${missing[@]}"; do
  read -r kind package purpose <<<"$line"
  if [ "$kind" = needed ]; then
    say "still missing: $package; Ballast needs it for ${purpose//_/ }"
    status=1
  else
    say "doing without $package: no ${purpose//_/ }"
  fi
done
[ $status != 0 ] || say "ready"
exit $status
