#!/usr/bin/env bash
# Makes the most of some minutes on a GPU: evidence first, everything kept; --help tells the rest.
set -euo pipefail

# shellcheck source=bench/gpu_steps.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/gpu_steps.sh"

readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_LEFT=3
readonly MOST_BYTES=$((16 * 1024 * 1024)) # of the archive
readonly LEAST_STEP_S=5                   # no step starts with less
readonly LEFT="left for another call" # what a step that stopped by itself says
readonly STAGES="check ceilings sweep report measure tune targets steps accuracy gate all"

usage() {
    cat <<'EOF'
usage: bench/gpu_session.sh --stage STAGE[,STAGE...] --minutes M --out DIR [options]

Checks the GPU kernels and measures them, within M minutes. Every step has a time limit and a log
in DIR; DIR/steps.tsv tells how each ended. The same command goes on where it was stopped: steps
that ended well are skipped, unless the kernels or their tests have changed since.

  --stage STAGES   check (tiles, tests, memory checker, ceilings, a small sweep, report), or one part
                   of it: ceilings, sweep, report; measure (other timing modes, break-even, a profile
                   with ncu where it is, energy, report); tune (the fastest right tile of each
                   problem of targets); targets (3x3 layers of three networks at 75 to 90 %, with
                   the tiles that tune found in DIR); steps (whole training steps of VGG-16,
                   WRN-28-10 and ResNet-50 against dense, with their report); accuracy (CIFAR-10
                   in HRBP_CIFAR10, or data/cifar10: the preset cifar10-short; finished runs and
                   checkpoints are kept for another call); gate (how often the gate errs here);
                   all (all of them)
  --minutes M      time for all of it
  --out DIR        where logs and results go
  --archive FILE   where all of DIR is packed, after each step (default: DIR/results.tar.zst, or
                   .gz where there is no zstd); at most 16 MiB
  --device DEVICE  cuda or cpu, where kernels are interpreted: to try the script (default: cuda)
  --no-install     install nothing: use the python3 at hand (or HRBP_PYTHON), as where nothing is missing
  --dry-run        print every command with its time limit, and run none
  --help           this text

Caches stay in this checkout (.cache). The GPU's settings are never touched.
exit codes: 0 all done · 1 a step failed · 2 wrong usage, or something is missing ·
3 steps are left for another call · 130, 143 stopped
EOF
}

say() { printf '\n== %s\n' "$*"; }

stop() { # SENTENCE
    printf '\ngpu_session.sh: %s\n' "$1" >&2
    exit "$EXIT_USAGE"
}

bad_usage() { stop "$1; bench/gpu_session.sh --help lists what there is"; }

parse() {
    stage="" minutes="" out="" archive="" device=cuda install=yes dry_run=""
    while [ $# -gt 0 ]; do
        case $1 in
        --stage | --minutes | --out | --archive | --device)
            [ -n "${2:-}" ] || bad_usage "expected a value after $1"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        --no-install) install=no ;;
        --dry-run) dry_run=yes ;;
        -h | --help) usage && exit 0 ;;
        *) bad_usage "expected an option, got '$1'" ;;
        esac
        shift
    done
    local each
    for each in stage minutes out; do [ -n "${!each}" ] || bad_usage "expected --$each"; done
    case $device in cuda | cpu) ;; *) bad_usage "expected a device of cuda, cpu; got '$device'" ;; esac
    [[ $minutes =~ ^[0-9]{1,6}([.][0-9]+)?$ ]] || bad_usage "expected --minutes as a number above 0, got '$minutes'"
    budget=$(awk -v m="$minutes" 'BEGIN { printf "%d", m * 60 }') # seconds
    [ "$budget" -gt 0 ] || bad_usage "expected --minutes of at least a second, got '$minutes'"
    for each in ${stage//,/ }; do
        case " $STAGES " in
        *" $each "*) ;;
        *) bad_usage "expected a stage of ${STAGES// /, }; got '$each'" ;;
        esac
    done
}

# --- running them ------------------------------------------------------------------------------

limit_of() { # INDEX: the step's seconds, or its share of what is left where that is more
    local i all=0 left packing=$((budget / 20 < 15 ? budget / 20 : 15))
    for ((i = $1; i < ${#steps[@]}; i++)); do
        is_done "${steps[i]}" || all=$((all + weights[i]))
    done
    left=$((budget - packing - SECONDS - spent))
    [ "$left" -gt "$all" ] || all=$((left > weights[$1] ? left : weights[$1])) # the last ones wait
    echo $((left * weights[$1] / all))
}

is_done() { # STEP: it ended well before, with the same code; a report is never done
    [[ "$1" != *report ]] && [ "$(awk -F'\t' -v s="$1" '$1 == s { code = $2 } END { print code }' "$out/steps.tsv" 2>/dev/null)" = 0 ] &&
        ! grep -q "$LEFT" "$out/$1.log" 2>/dev/null
}

run_step() { # STEP LIMIT: sets code
    local log=$out/$1.log start=$SECONDS
    code=0
    [ "$1" != sanitizer ] || rm -rf -- "$out/sanitizer" # what was checked before would be skipped
    timeout --kill-after=10 "$2" "${command[@]}" >"$log" 2>&1 &
    child=$!
    wait "$child" || code=$?
    child=""
    [ "$1" != machine ] || cp -- "$log" "$out/machine.txt"
    tail -n 12 -- "$log" && printf '%s\t%s\t%s\t%s\n' "$1" "$code" "$((SECONDS - start))" "$2" >>"$out/steps.tsv"
}

run_all_steps() {
    local i limit code
    for ((i = 0; i < ${#steps[@]}; i++)); do
        is_done "${steps[i]}" && say "${steps[i]}: done before" && continue
        limit=$(limit_of "$i")
        if [ "$limit" -lt "$LEAST_STEP_S" ]; then
            say "${steps[i]}: left for another call, $limit s are too few"
            left+=("${steps[i]}")
            continue
        fi
        command_of "${steps[i]}" "$limit"
        if [ -n "$dry_run" ]; then
            spent=$((spent + limit))
            printf '%s\t%s s\t%s\n' "${steps[i]}" "$limit" "$(printf ' %q' timeout "$limit" "${command[@]}")"
            continue
        fi
        say "${steps[i]} (at most $limit s)"
        run_step "${steps[i]}" "$limit"
        case $code in
        0) if grep -q "$LEFT" "$out/${steps[i]}.log"; then left+=("${steps[i]}"); fi ;;
        124 | 137) left+=("${steps[i]}") && echo "${steps[i]} was stopped at its limit" ;;
        *) failed+=("${steps[i]}") && echo "${steps[i]} failed with exit code $code; see $out/${steps[i]}.log" ;;
        esac
        pack || true # the next one may succeed
    done
}

pack() { # all of DIR, or its smaller files where that is too much
    local most list=$out/.packing status=0
    for most in "" 1024k 64k; do
        (cd -- "$out" && find . -type f ! -name 'results.tar.*' ! -name "${archive##*/}*" ! -name .packing ${most:+-size -"$most"} -print0) >"$list"
        tar -C "$out" --null -T "$list" -cf - 2>/dev/null | "$packer" -q -c >"$archive.part" || status=$?
        [ "$(wc -c <"$archive.part")" -gt "$MOST_BYTES" ] || break
        echo "note: the archive is above 16 MiB; larger files are left out of it"
    done
    rm -f -- "$list" && mv -f -- "$archive.part" "$archive"
    return "$status"
}

finish() { # on every way out
    local rc=$?
    trap - EXIT
    if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null && wait "$child" || true; fi
    pack || echo "note: packing failed; what there is lies in $out"
    say "packed: $archive"
    exit "$rc"
}

# --- before the steps --------------------------------------------------------------------------

find_python() {
    python=$(command -v -- "${HRBP_PYTHON:-python3}") ||
        stop "expected a python3, or one named by HRBP_PYTHON; got '${HRBP_PYTHON:-python3}', which is no command here"
    case $python in /*) ;; *) python=$PWD/$python ;; esac
}

missing() { # modules that the interpreter lacks
    "$python" -c 'from importlib.util import find_spec
names = "torch triton pandas matplotlib pytest hypothesis typer rich filelock scipy pyarrow pynvml jinja2"
print(*(name for name in names.split() if find_spec(name) is None))'
}

make_ready() {
    local lacks
    if [ "$install" = yes ] && [ -n "$(missing)" ]; then # where nothing is missing, pip may find no network
        [ -x .venv/bin/python ] || "$python" -m venv .venv || stop "$python cannot make .venv; install its venv module"
        python=$PWD/.venv/bin/python
        if [ -n "$(missing)" ]; then
            say "installing (this can take minutes)"
            "$python" -m pip install -q -c constraints.txt torch || stop "pip could not install torch"
            "$python" -m pip install -q -c constraints.txt -e '.[test]' || stop "pip could not install the rest"
        fi
    fi
    lacks=$(missing) || stop "expected $python to run, it does not"; [ -z "$lacks" ] || stop "$python lacks ${lacks// /, }: leave --no-install out, or install '.[test]' there"
    if "$python" -c 'from importlib.util import find_spec as f; raise SystemExit(not f("xdist"))'; then spread=yes; fi
    [ "$device" = cpu ] || timeout 180 "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
        stop "expected a CUDA device, found none (torch.cuda.is_available() is false); --dry-run shows what would run"
}

set_old_aside() { # what earlier code gave is no evidence for this one
    local now before
    now=$(find hrbp_core tests bench/impls -name '*.py' | LC_ALL=C sort | xargs -d '\n' cat | sha256sum | cut -c 1-12)
    before=$(cat "$out/code.txt" 2>/dev/null || true)
    if [ -n "$before" ] && [ "$before" != "$now" ]; then
        say "the code has changed: earlier steps and sweep go to $out/before-$before"
        mkdir -p -- "$out/before-$before"
        mv -f -- "$out/steps.tsv" "$out/sweep" "$out/before-$before/" 2>/dev/null || true
    fi
    echo "$now" >"$out/code.txt"
}

keep_caches_here() {
    export XDG_CACHE_HOME=$PWD/.cache MPLCONFIGDIR=$PWD/.cache/matplotlib MPLBACKEND=agg
    export TRITON_CACHE_DIR=$PWD/.cache/triton TORCHINDUCTOR_CACHE_DIR=$PWD/.cache/torchinductor
    export CUDA_CACHE_PATH=$PWD/.cache/cuda HYPOTHESIS_STORAGE_DIRECTORY=$PWD/.cache/hypothesis
    export PYTHONUNBUFFERED=1 COLUMNS=110
}

main() {
    unset CDPATH
    parse "$@"
    case $out in /*) ;; *) out=$PWD/$out ;; esac
    case $archive in "" | /*) ;; *) archive=$PWD/$archive ;; esac
    find_python
    cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
    sanitizer=$(command -v compute-sanitizer || compgen -G '/usr/local/cuda*/bin/compute-sanitizer' | head -n 1 || true)
    packer=gzip child="" spread="" spent=0 left=() failed=()
    if command -v zstd >/dev/null; then packer=zstd; fi
    [ -n "$archive" ] || archive=$out/results.tar.$([ "$packer" = zstd ] && echo zst || echo gz)
    plan
    if [ -n "$dry_run" ]; then run_all_steps && exit 0; fi
    mkdir -p -- "$out" "$(dirname -- "$archive")" 2>/dev/null && [ -w "$out" ] && [ -w "$(dirname -- "$archive")" ] ||
        stop "cannot write to $out or to the folder of $archive: name others with --out DIR, --archive FILE"
    make_ready
    keep_caches_here
    trap finish EXIT && trap 'exit 130' INT && trap 'exit 143' TERM HUP
    set_old_aside
    run_all_steps
    say "step, exit code, seconds, limit"
    cat -- "$out/steps.tsv" 2>/dev/null || true
    [ ${#left[@]} -eq 0 ] || echo "left for another call of the same command: ${left[*]}"
    [ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" && exit "$EXIT_FAILED"; }
    [ ${#left[@]} -eq 0 ] || exit "$EXIT_LEFT"
}

main "$@"
