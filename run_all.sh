#!/usr/bin/env bash
# Installs, measures, trains and reports, from a fresh checkout; --help tells the rest.
set -euo pipefail

readonly EXIT_STOP=2 # usage or infrastructure; a failing step's own code is passed on as it is
readonly NEED_MIB=3500 # what a CPU build of torch and the rest take, with room to unpack
readonly NEED_CUDA_MIB=12000

usage() {
    cat <<'EOF'
usage: ./run_all.sh [--suite NAME] [--device auto|cpu|cuda] [--out DIR] [--no-install]
       ./run_all.sh test [--no-install]

The first form makes .venv in this checkout, measures a suite, trains the digits networks and
writes the report, whose place, headline and gate command it prints at the end.
Running it again resumes at whatever is missing.

  --suite NAME     the table of layers to measure (default: quick)
  --device DEVICE  auto, cpu or cuda (default: auto)
  --out DIR        where results and report go (default: results/NAME in this checkout)
  --no-install     install nothing: use the python3 at hand (or HRBP_PYTHON)
  --help           this text

The second form runs lint and the tests of the CPU under tox; with --no-install, under the
python3 at hand.

HRBP_PYTHON names the interpreter (Python 3.11 or newer). pip's own settings are honoured,
PIP_INDEX_URL and PIP_EXTRA_INDEX_URL among them: where there is no NVIDIA GPU, naming PyTorch's
CPU index in the latter fetches a build of torch that is smaller by several gigabytes.
Everything made here stays in this checkout (.venv, .venv-tox, .tox, .cache, results), but for
pip's own cache.

exit codes: 0 all done · 2 wrong usage, or something is missing · 5 a cell is wrong ·
130 stopped by hand · any other is the failing step's own
EOF
}

say() { printf '\n== %s\n' "$*"; }

stop() { # CODE SENTENCE
    printf '\nrun_all.sh: %s\n' "$2" >&2
    exit "$1"
}

bad_usage() { stop "$EXIT_STOP" "$1; ./run_all.sh --help lists what there is"; }

parse() {
    mode=run suite=quick device=auto out="" install=yes
    local given=""
    if [ "${1:-}" = test ]; then mode='test' && shift; fi
    while [ $# -gt 0 ]; do
        case $1 in
        --suite=* | --device=* | --out=*)
            local option=${1%%=*} value=${1#*=}
            shift
            set -- "$option" "$value" "$@"
            continue
            ;;
        --suite | --device | --out)
            [ -n "${2:-}" ] || bad_usage "expected a value after $1"
            given=$1
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        --no-install) install=no ;;
        -h | --help) usage && exit 0 ;;
        *) bad_usage "expected an option, got '$1'" ;;
        esac
        shift
    done
    if [ "$mode" = test ] && [ -n "$given" ]; then bad_usage "$given has no meaning with 'test'"; fi
    case $device in
    auto | cpu | cuda) ;;
    *) bad_usage "expected a device of auto, cpu, cuda; got '$device'" ;;
    esac
}

# --- the interpreter -------------------------------------------------------------------------

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local name
    if [ -n "${HRBP_PYTHON:-}" ]; then
        python=$(command -v -- "$HRBP_PYTHON") ||
            stop "$EXIT_STOP" "HRBP_PYTHON names '$HRBP_PYTHON', which is no command here"
        case $python in /*) ;; *) python=$PWD/$python ;; esac
        new_enough "$python" ||
            stop "$EXIT_STOP" "expected Python 3.11 or newer in HRBP_PYTHON, got '$("$python" --version 2>&1)'"
        return
    fi
    for name in python3 python3.13 python3.12 python3.11 python3.14 python; do
        python=$(command -v "$name") && new_enough "$python" && return
    done
    stop "$EXIT_STOP" "expected Python 3.11 or newer, found none on PATH: install one (Debian and \
Ubuntu: apt install python3 python3-venv), or name it: HRBP_PYTHON=/path/to/python ./run_all.sh"
}

home_of() { "$1" -c 'import sys; print(sys.version_info[:2], sys.base_prefix)' 2>/dev/null; }

make_venv() { # DIR
    if new_enough "$1/bin/python" && "$1/bin/python" -c 'import pip' 2>/dev/null; then
        # an interpreter that was asked for by name replaces another one's environment
        [ -n "${HRBP_PYTHON:-}" ] && [ "$(home_of "$python")" != "$(home_of "$1/bin/python")" ] || return 0
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        stop "$EXIT_STOP" "$python cannot make virtual environments: install its venv module (Debian \
and Ubuntu: apt install python3-venv), or name another interpreter in HRBP_PYTHON"
    say "making $1 with $("$python" --version)"
    "$python" -m venv --clear "$1" >"$log" 2>&1 || install_failed $? "making $1"
}

# --- installing ------------------------------------------------------------------------------

free_mib() { df -Pk . | awk 'NR == 2 { print int($4 / 1024) }'; }

has_gpu() { command -v nvidia-smi >/dev/null || compgen -G '/dev/nvidia[0-9]*' >/dev/null; }

check_disk() {
    local free
    free=$(free_mib)
    if [ "$free" -lt "$NEED_MIB" ]; then
        stop "$EXIT_STOP" "expected at least $NEED_MIB MiB of free disk to install torch, got $free MiB: \
free some, or move the checkout to a larger disk"
    elif [ "$free" -lt "$NEED_CUDA_MIB" ]; then
        echo "note: $free MiB of disk are free; a CUDA build of torch and pip's cache of it want $NEED_CUDA_MIB"
    fi
    has_gpu || echo "note: no NVIDIA GPU is visible; --help says how to fetch the smaller CPU build of torch"
}

install_failed() { # CODE WHAT: turn what stands in the log into a sentence
    local no_answer='NewConnectionError|NameResolutionError|name resolution|Connection refused|'
    no_answer+='ConnectTimeout|ReadTimeout|Read timed out|ProxyError|Network is unreachable|Max retries exceeded'
    if [ "$1" -eq 130 ]; then
        stop 130 "stopped by hand while $2; the same command goes on"
    elif grep -qE 'No space left on device|Disk quota exceeded' "$log" || [ "$(free_mib)" -lt 50 ]; then
        stop "$EXIT_STOP" "the disk is full ($(free_mib) MiB free) while $2: free some and run this again"
    elif grep -qE "$no_answer|CERTIFICATE_VERIFY_FAILED" "$log"; then
        stop "$EXIT_STOP" "the package index did not answer while $2: check the network, a proxy \
(HTTPS_PROXY) or pip's index (PIP_INDEX_URL), and run this again; all of pip's words: $log"
    elif grep -q 'No matching distribution found' "$log"; then
        stop "$EXIT_STOP" "the package index has no$(sed -n 's/.*No matching distribution found for\( [^ ]*\).*/\1/p' "$log" |
            head -n 1) for $("$python" --version) on this machine: name another interpreter in HRBP_PYTHON; \
all of pip's words: $log"
    fi
    tail -n 20 "$log" >&2
    stop "$EXIT_STOP" "failed while $2, for the reason above; the whole log: $log"
}

pip_install() { # VENV ARGUMENTS
    local venv=$1 rc=0
    shift
    : >"$log"
    # what is never imported need not be compiled
    set -- --disable-pip-version-check --no-compile --constraint constraints.txt --log "$log" "$@"
    [ -t 1 ] || set -- --quiet "$@"
    "$venv/bin/python" -m pip install "$@" || rc=$?
    [ "$rc" -eq 0 ] || install_failed "$rc" "installing ${*: -1}"
}

stamp() { # VENV: what an installation hangs on, the place included (a link leads back here)
    "$1/bin/python" -c 'import hashlib, os, sys
parts = [open(name, "rb").read() for name in ("pyproject.toml", "constraints.txt")]
print(hashlib.sha256(b"".join([*parts, os.getcwd().encode(), sys.version.encode()])).hexdigest())'
}

install_suite() {
    make_venv .venv
    local want
    want=$(stamp .venv)
    if [ "$(cat .venv/hrbp-stamp 2>/dev/null)" != "$want" ]; then
        check_disk
        say "installing torch (this can take minutes)"
        pip_install .venv torch # alone and first: nothing else then asks for another build
        say "installing the rest"
        pip_install .venv --editable '.[bench]'
        printf '%s\n' "$want" >.venv/hrbp-stamp
    fi
    python=$PWD/.venv/bin/python
}

# --- the steps -------------------------------------------------------------------------------

explain() { # CODE WHAT: the sentence for a step that failed
    case $mode-$1 in
    test-130) echo "stopped by hand at '$2'" ;;
    test-*) echo "'$2' failed with exit code $1, for the reason above" ;;
    *-2) echo "stopped at '$2', for the reason above" ;;
    *-5) echo "stopped at '$2': a cell's result is wrong or impossible; $out/results.jsonl tells which (status, reason)" ;;
    *-130) echo "stopped by hand at '$2'; the same command resumes" ;;
    *-137) echo "'$2' was killed, most likely for want of memory; the same command resumes" ;;
    *) echo "'$2' failed with exit code $1, for the reason above; the same command resumes" ;;
    esac
}

step() { # WHAT COMMAND...
    local what=$1 rc=0
    shift
    say "$what"
    "$@" || rc=$?
    if [ "$rc" -ne 0 ] && [ "$(free_mib)" -lt 50 ]; then
        stop "$rc" "the disk is full ($(free_mib) MiB free): stopped at '$what'; free some, and the same command resumes"
    fi
    [ "$rc" -eq 0 ] || stop "$rc" "$(explain "$rc" "$what")"
}

keep_caches_here() { # after installing, so that pip's own cache stays where pip keeps it
    export XDG_CACHE_HOME=$PWD/.cache MPLCONFIGDIR=$PWD/.cache/matplotlib
    export TRITON_CACHE_DIR=$PWD/.cache/triton TORCHINDUCTOR_CACHE_DIR=$PWD/.cache/torchinductor
    export CUDA_CACHE_PATH=$PWD/.cache/cuda HYPOTHESIS_STORAGE_DIRECTORY=$PWD/.cache/hypothesis
}

check_suite() { # needs nothing but Python, so that a slip of the pen costs no installation
    "$python" -c 'import sys
from bench.suites import find_suite
try:
    find_suite(sys.argv[1])
except ValueError as error:
    sys.exit(f"run_all.sh: {error}")' "$suite" || exit "$EXIT_STOP"
}

run_suite() {
    check_suite
    mkdir -p -- "$out" 2>/dev/null && [ -w "$out" ] ||
        stop "$EXIT_STOP" "cannot write to $out: name another folder with --out DIR"
    [ "$install" = no ] || install_suite
    keep_caches_here
    step "looking at this machine" "$python" -m bench.doctor
    step "measuring the suite $suite" "$python" -m bench run --suite "$suite" --device "$device" --out "$out"
    step "training the digits networks" "$python" -m bench accuracy --preset digits --device "$device" --out "$out"
    step "writing the report" "$python" -m bench report "$out"
}

test_here() {
    local tool
    "$python" -c 'import hypothesis, pytest' 2>/dev/null ||
        stop "$EXIT_STOP" "$python lacks pytest or hypothesis: leave --no-install out, or run \
python -m pip install -c constraints.txt -e '.[test]'"
    keep_caches_here
    step "looking at this machine" "$python" -m bench.doctor
    for tool in "ruff check ." "ruff format --check ." mypy; do
        if "$python" -c "import ${tool%% *}" 2>/dev/null; then
            # shellcheck disable=SC2086 # the words of $tool are arguments
            step "$tool" "$python" -m $tool
        else
            echo "note: ${tool%% *} is not installed, so '$tool' is left out"
        fi
    done
    step "testing" env OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$python" -m tests
}

test_in_tox() {
    local rc=0
    make_venv .venv-tox
    if [ "$(cat .venv-tox/hrbp-stamp 2>/dev/null)" != "$(stamp .venv-tox)" ]; then
        say "installing tox"
        pip_install .venv-tox tox
        stamp .venv-tox >.venv-tox/hrbp-stamp
    fi
    [ -x .tox/cpu/bin/python ] || check_disk
    export VIRTUALENV_OVERRIDE_APP_DATA=$PWD/.cache/virtualenv
    PIP_CACHE_DIR=$(.venv-tox/bin/python -m pip cache dir 2>/dev/null) && export PIP_CACHE_DIR
    keep_caches_here
    say "installing what the tests need (this can take minutes)"
    .venv-tox/bin/python -m tox run --notest -e cpu 2>&1 | tee "$log" || rc=${PIPESTATUS[0]}
    [ "$rc" -eq 0 ] || install_failed "$rc" "installing what the tests need"
    step "lint and tests" .venv-tox/bin/python -m tox run --fail-fast -e lint,cpu
}

main() {
    unset CDPATH
    parse "$@"
    case $out in "" | /*) ;; *) out=$PWD/$out ;; esac
    find_python
    cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
    log=$PWD/.cache/install.log
    [ -n "$out" ] || out=$PWD/results/$suite
    mkdir -p .cache 2>/dev/null && [ -w . ] && [ -w .cache ] ||
        stop "$EXIT_STOP" "cannot write to $PWD: copy the checkout to a folder of your own"
    case $mode,$install in
    run,*) run_suite ;;
    test,yes) test_in_tox ;;
    test,no) test_here ;;
    esac
}

main "$@"
