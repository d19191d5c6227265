# The steps of gpu_session.sh: their order, their share of the time, their commands. Sourced by it.
# shellcheck shell=bash disable=SC2034,SC2154 # variables are gpu_session.sh's

readonly SLOW_TESTS="half_precision or float32 or autograd or every_block" # hundreds of kernels
readonly FIRST_LAYERS=conv4_3x3,conv3_3x3,conv5_3x3

# what matters most comes first
plan() { # sets steps (in order) and weights: the seconds of each in a call of nine minutes
    local name weight of
    steps=() weights=()
    while read -r name weight of; do
        [ "$name" != sanitizer ] || [ -n "$sanitizer$dry_run" ] || continue
        # "all" goes without images that are not there; who asks for them is told
        [[ "$name" != accuracy* || $stage != *all* || -d "${HRBP_CIFAR10:-data/cifar10}" ]] || continue
        if wanted "$of"; then steps+=("$name") && weights+=("$weight"); fi
    done <<'EOF'
machine 20 check,ceilings,sweep,measure,tune,targets,steps,accuracy,gate,cuda,cpu
doctor 20 check,cuda,cpu
tiles-first 105 check,cuda,cpu
tests-first 45 check,cuda,cpu
sweep-first 70 check,sweep,cuda,cpu
ceilings 35 check,ceilings,cuda,cpu
tests 60 check,cuda,cpu
sanitizer 35 check,cuda
sweep-bfloat16 60 check,sweep,cuda,cpu
sweep-float16 30 check,sweep,cuda
tune 240 tune,cuda
targets 300 targets,cuda
steps-vgg16 100 steps,cuda
steps-wrn28_10 130 steps,cuda
steps-resnet50 130 steps,cuda
steps-report 20 steps,cuda
accuracy 480 accuracy,cuda
accuracy-report 20 accuracy,cuda
gate 240 gate,cuda
sweep-sustained 90 measure,cuda
profile 60 measure,cuda,cpu
breakeven 90 measure,cuda,cpu
energy 60 measure,cuda
sweep-host 40 measure,cuda
report 20 check,sweep,report,measure,cuda,cpu
tiles-rest 40 check,cuda,cpu
EOF
}

wanted() { # STAGES AND DEVICES of a step: whether it was asked for
    local each
    case ",$1," in *",$device,"*) ;; *) return 1 ;; esac
    for each in ${stage//,/ }; do
        case ",$1," in *",$each,"*) return 0 ;; esac
        [ "$each" != all ] || return 0
    done
    return 1
}

command_of() { # STEP LIMIT: sets command
    local run=("$python" -m bench run --suite quick --device "$device" --out "$out/sweep")
    local first=(--densities 0.25 --blocks "64,32" --layers "$FIRST_LAYERS")
    # pytest-benchmark warns when xdist is there, and warnings are errors
    local tests=("$python" -m pytest tests/test_gpu.py -m gpu -v --durations 15 -p no:benchmark)
    local tiles=("$python" -m bench check --device cuda --out "$out") half=bfloat16 soon
    # a little before the limit, so that it stops by itself and tells what is left
    soon=$(awk -v s="$2" 'BEGIN { printf "%.2f", (s > 60 ? s - 20 : s * 0.6) / 60 }')
    if [ "$device" = cpu ]; then
        tiles=("$python" -m bench check --device interpreter --dtypes float32 --blocks 16 --out "$out")
        half=float32
    fi
    local aims=(--suite targets --batch 256 --dtype "$half")
    case $1 in
    machine) # shellcheck disable=SC2016 # "$0" is for that bash
        command=(bash -c 'nvidia-smi -L; nvidia-smi; "$0" -VV; uname -a; "$0" -c "import torch, triton"; "$0" -m pip list || :' "$python")
        ;;
    doctor) command=("$python" -m bench doctor) ;;
    tiles-first) command=("${tiles[@]}" --quick --minutes "$soon") ;;
    tiles-rest) command=("${tiles[@]}" --minutes "$soon") ;;
    tests-first) command=("${tests[@]}" -k "not ($SLOW_TESTS)" --junitxml "$out/tests-first.xml") ;;
    tests) command=(env HRBP_GPU_EXAMPLES=10 "${tests[@]}" ${spread:+-n 8} -k "$SLOW_TESTS" --junitxml "$out/tests.xml") ;;
    sanitizer) # our three passes on one block, in one process, each allocation a block of its own
        command=(env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "${sanitizer:-compute-sanitizer}" --tool memcheck --report-api-errors no --error-exitcode 9
            "$python" -m bench check --device cuda --out "$out/sanitizer" --quick --jobs 0
            --dtypes bfloat16 --blocks 64)
        ;;
    ceilings) command=("$python" -m bench ceilings --device "$device" --out "$out") ;;
    sweep-first)
        command=("${run[@]}" --dtype "$half" "${first[@]}" --impls "dense,block_sparse") ;;
    sweep-bfloat16) command=("${run[@]}" --dtype "$half") ;;
    sweep-float16) command=("${run[@]}" --dtype float16) ;;
    tune) command=("$python" -m bench tune "${aims[@]}" --minutes "$soon" --out "$out/tune") ;;
    targets) # with the tiles that were tuned here, as far as there are some
        command=("$python" -m bench run "${aims[@]}" --device "$device"
            --out "$out/targets")
        [ ! -s "$out/tune/tuned.json" ] || command=(env HRBP_TUNED="$out/tune/tuned.json" "${command[@]}")
        ;;
    steps-report) command=("$python" -m bench report "$out/steps") ;;
    steps-*) # each comparison is stored: another call goes on
        local network=${1#steps-}
        command=("$python" -m bench step --model "$network" --batch "$([ "$network" = resnet50 ] && echo 64 || echo 128)"
            --block 64 --mode graph,eager --density 0.25,0.125 --trials 3 --no-energy --device "$device"
            --budget "$(awk -v s="$soon" 'BEGIN { printf "%.2f", s * 0.7 }')" --out "$out/steps")
        ;;
    accuracy-report) command=("$python" -m bench report "$out/accuracy") ;;
    accuracy)
        command=("$python" -m bench accuracy --preset cifar10-short --root "${HRBP_CIFAR10:-data/cifar10}"
            --device "$device" --checkpoint-every 10 --out "$out/accuracy")
        ;;
    gate) # half of the time is the pool's; the rest goes to virtual runs and a planted slow-down
        command=("$python" -m bench gate --self-test --device "$device" --dtype "$half" --out "$out/gate"
            --budget "$(awk -v s="$2" 'BEGIN { printf "%.2f", s / 120 }')") ;;
    sweep-sustained)
        command=("${run[@]}" --dtype "$half" "${first[@]}" --mode sustained --impls "dense,gather_grouped,block_sparse") ;;
    sweep-host)
        command=("${run[@]}" --dtype "$half" "${first[@]}" --mode host --impls "dense,block_sparse") ;;
    profile)
        command=("$python" -m bench profile --layer conv4_3x3 --block 64 --density 0.25 --dtype "$half"
            --device "$device" --out "$out/profile")
        [ "$device" = cpu ] || command+=(--ncu)
        ;;
    breakeven)
        command=("$python" -m bench breakeven --layer conv4_3x3 --block 64 --dtype "$half"
            --device "$device" --out "$out/sweep")
        ;;
    energy) # in a folder of its own: the sweep's cells are there already
        command=("$python" -m bench run --suite quick --device "$device" --dtype "$half" --energy --layers conv4_3x3
            --densities 0.25 --blocks 64 --impls "dense,block_sparse" --out "$out/energy")
        ;;
    report) command=("$python" -m bench report "$out/sweep") ;;
    esac
}
