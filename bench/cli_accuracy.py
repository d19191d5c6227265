"""The ``accuracy`` command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli_errors import sentences
from bench.cli_lists import split
from bench.progress import bar

KEPT = "finished runs are kept, unfinished ones up to a checkpoint; the same command goes on"
_HELP_PRESET = "digits (two to five minutes on 2 cores), cifar10-short, cifar10-full, imagenet."
_HELP_ARMS = "E.g. dense,unstructured:rigl,hrbp2,hrbp2:set,grouped,thin."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(accuracy)


def accuracy(
    out: Annotated[Path, typer.Option(help="Results folder; resumed.")] = Path("results/accuracy"),
    preset: Annotated[str | None, typer.Option(help=_HELP_PRESET)] = None,
    data: Annotated[str | None, typer.Option(help="digits, cifar10, cifar100, imagenet.")] = None,
    root: Annotated[Path | None, typer.Option(help="The folder that holds the data.")] = None,
    model: Annotated[str | None, typer.Option(help="resnet18, wrn28_10, ... of the data.")] = None,
    arms: Annotated[str | None, typer.Option(help=_HELP_ARMS)] = None,
    densities: Annotated[str | None, typer.Option(help="E.g. 0.5,0.25,0.125.")] = None,
    block: Annotated[str | None, typer.Option(help="E.g. 16, or 32,16.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs an arm and density.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="The greatest learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of all parameters.")] = None,
    allocation: Annotated[str | None, typer.Option(help="uniform or erk.")] = None,
    balance: Annotated[str | None, typer.Option(help="none, filters or both.")] = None,
    scores: Annotated[
        str | None, typer.Option(help="snip, grasp, synflow, magnitude or random.")
    ] = None,
    dst_every: Annotated[int | None, typer.Option(help="Steps between updates.")] = None,
    dst_drop: Annotated[float | None, typer.Option(help="Share dropped at first.")] = None,
    amp: Annotated[bool | None, typer.Option("--amp/--no-amp", help="bfloat16.")] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic/--fastest", help="The same bits every time.")
    ] = None,
    take: Annotated[str | None, typer.Option(help="Training, test images: 5000,1000.")] = None,
    skip_unreadable: Annotated[bool, typer.Option(help="Count bad images, go on.")] = False,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds, at least.")] = 20.0,
    beside: Annotated[str, typer.Option(help="Runs trained at once: 1, 2, ..., auto.")] = "1",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the same network dense and sparse, and keep accuracy and step times.
    Exits 0, 2 usage, 130 interrupted.

    Example: python -m bench accuracy --preset digits --out results/quick
    On several GPUs: torchrun --nproc-per-node 8 -m bench accuracy --preset imagenet --root DIR
    """
    given: dict[str, Any] = {
        "data": data, "root": None if root is None else str(root), "model": model,
        "seeds": seeds, "epochs": epochs, "batch": batch, "lr": lr, "weight_decay": weight_decay,
        "allocation": allocation, "balance": balance, "scores": scores, "dst_every": dst_every,
        "dst_drop": dst_drop, "deterministic": deterministic, "device": device,
        "skip_unreadable": skip_unreadable or None,
        "precision": {None: None, True: "bfloat16", False: "float32"}[amp],
    }  # fmt: skip
    with sentences(KEPT):
        from bench.accuracy.command import beside_of, make_plan, train_plan
        from bench.accuracy.place import place_of

        at_once = beside_of(beside)
        first = place_of(os.environ).first
        plan = make_plan(
            preset,
            arms=split(arms, "arms", str),
            densities=split(densities, "densities", float),
            block=_pair(split(block, "block", int), "block"),
            take=_pair(split(take, "take", int), "take"),
            **given,
        )
        with bar("runs") as progress:
            runs = train_plan(plan, out, progress, checkpoint_every, at_once)
    if not first:
        return
    bad = [r for r in runs if r["status"] != "ok"]
    print(f"{out}: {len(runs)} runs, {len(bad)} without an accuracy")
    for each in bad:
        print(f"  {each['arm']} density {each['density']:g} seed {each['seed']}: {each['reason']}")
    print(f"to draw: python -m bench report {out}")


def _pair(numbers: tuple[int, ...] | None, name: str) -> tuple[int, int] | None:
    if numbers is None:
        return None
    if len(numbers) not in (1, 2):
        raise ValueError(f"expected --{name} as one or two numbers, got {len(numbers)}")
    return numbers[0], numbers[-1]
