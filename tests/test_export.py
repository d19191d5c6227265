"""Exports: what other programs read must be what the store holds, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from bench import benchmark_json, ceilings_file, cli_export, export
from bench.export import FILES, MEASURED
from bench.jsonl import StoreError
from bench.records import Flag, Status
from bench.store import read_results
from bench.table import ROW_COLUMNS
from tests import synthetic_results as synthetic
from tests.store_samples import CALM, ENVIRONMENT, cell, failed, store
from tests.test_compare import compare

OTHER = dataclasses.replace(ENVIRONMENT, device_name="another machine", commit=None)
ODD = "conv [bold]é漢[/bold]\n{0} %s \x1b[31m\ud800"


@pytest.fixture
def folder(tmp_path):
    """One cell of each status; the impossible one has kept its times."""
    gaps = [s for s in Status if s not in (Status.OK, Status.IMPOSSIBLE)]
    return store(
        tmp_path / "results",
        cell(0, detail={"repeats": 4, "peak_bytes": 4096}, flags=(Flag.NOISY,), prep_s=0.25),
        cell(1, CALM, status=Status.IMPOSSIBLE, reason="under its floor"),
        *(failed(status, 2 + n, f"why {status}") for n, status in enumerate(gaps)),
    )


def document(folder, **options):
    return json.loads(export.export(folder, "pytest-benchmark", **options).path.read_text())


def run_cli(*words):
    app = typer.Typer()
    app.callback()(lambda: None)  # typer leaves the name of an only command out
    cli_export.register(app)
    return CliRunner().invoke(app, ["export", *map(str, words)])


def test_a_benchmark_has_the_samples_and_their_statistics(folder):
    found = document(folder)
    (benchmark,) = found["benchmarks"]
    stats = benchmark["stats"]
    assert stats["data"] == list(CALM)
    assert (stats["rounds"], stats["iterations"]) == (40, 4)
    assert stats["min"] == 980e-6
    assert stats["median"] == pytest.approx(999.5e-6)
    assert stats["mean"] == pytest.approx(statistics.fmean(CALM))
    assert stats["stddev"] == pytest.approx(statistics.stdev(CALM))
    assert (stats["q1"], stats["q3"]) == pytest.approx((989.5e-6, 1009.5e-6))
    assert stats["ops"] == pytest.approx(1 / stats["mean"])


def test_a_benchmark_has_the_facts_of_its_cell_and_its_machine(folder):
    found = document(folder)
    (benchmark,) = found["benchmarks"]
    stored = read_results(folder).measurements[0]
    facts = benchmark["extra_info"]
    assert (facts["cell_id"], facts["case_id"]) == (stored.cell.cell_id, stored.cell.case_id)
    assert facts["status"] == "ok"
    assert facts["flags"] == ["noisy"]
    assert (facts["peak_bytes"], facts["prep_s"], facts["errors"]) == (4096, 0.25, None)
    assert facts["detail"] == stored.detail
    assert benchmark["params"]["impl"] == "block_sparse"
    assert benchmark["name"] == "conv0[fprop-0.25-4x8-float32-block_sparse-cold]"
    assert benchmark["fullname"].startswith("test/conv0[")
    assert found["machine_info"]["hrbp"]["device_name"] == "a processor"
    assert "commit" not in found["machine_info"]["hrbp"]
    assert (found["commit_info"]["id"], found["commit_info"]["dirty"]) == ("abc", False)


def test_a_document_has_the_keys_of_the_installed_version(folder, tmp_path):
    test = tmp_path / "test_one.py"
    test.write_text("def test_one(benchmark):\n    benchmark.pedantic(int, rounds=2)\n")
    words = [test, f"--benchmark-json={tmp_path / 'theirs.json'}", "-q", "-c", os.devnull]
    subprocess.run([sys.executable, "-m", "pytest", *words], cwd=tmp_path, check=True, timeout=120)
    theirs, ours = json.loads((tmp_path / "theirs.json").read_text()), document(folder)
    assert ours.keys() - theirs.keys() == {benchmark_json.NOT_MEASURED}
    assert theirs.keys() <= ours.keys()
    for name in ("benchmarks", "stats"):
        theirs, ours = (d[name][0] if name == "benchmarks" else d[name] for d in (theirs, ours))
        assert ours.keys() == theirs.keys()


def test_what_is_not_ok_is_no_benchmark_and_has_its_reason(folder):
    found = document(folder)
    gaps = {g["status"]: g for g in found["hrbp_not_measured"]}
    assert set(gaps) == {str(s) for s in Status} - {"ok"}
    assert gaps["impossible"]["reason"] == "under its floor"
    assert gaps["oom"]["reason"] == "why oom"
    assert {g["cell_id"] for g in gaps.values()}.isdisjoint(
        b["extra_info"]["cell_id"] for b in found["benchmarks"]
    )


def test_a_store_without_an_ok_cell_still_opens(tmp_path):
    folder = store(tmp_path / "r", failed(Status.WRONG, 0), failed(Status.OOM, 1))
    told = run_cli(folder)
    assert (told.exit_code, "no cell is ok" in told.output) == (0, True)
    assert compare(tmp_path, folder / "benchmark.json").returncode == 0
    for form in ("csv", "parquet"):
        export.export(folder, form)
    assert pd.read_parquet(folder / "results.parquet")["median_s"].dtype == "float64"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_has_every_row_and_column_and_null_for_what_failed(folder, form):
    path = export.export(folder, form).path
    table = pd.read_csv(path) if form == "csv" else pd.read_parquet(path)
    assert list(table.columns) == ROW_COLUMNS
    assert len(table) == len(Status)
    ok = table["status"] == "ok"
    assert table.loc[ok, MEASURED].drop(columns="attainment").notna().all(axis=None)
    assert table.loc[~ok, MEASURED].isna().all(axis=None)
    assert (table["reason"].notna() == ~ok).all()
    assert float(table.loc[ok, "median_s"].iloc[0]) == pytest.approx(999.5e-6)
    assert int(table.loc[ok, "peak_bytes"].iloc[0]) == 4096
    assert "under its floor" in set(table["reason"].dropna())


def test_both_tables_are_the_same(tmp_path):
    folder = synthetic.write(tmp_path / "r", synthetic.sweep())
    csv, parquet = (export.export(folder, form).path for form in ("csv", "parquet"))
    parquet = pd.read_parquet(parquet)
    csv = pd.read_csv(csv, dtype=dict(parquet.dtypes), keep_default_na=False, na_values=[""])
    csv["flags"] = csv["flags"].fillna("")
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)


def test_several_environments_ask_which(tmp_path):
    folder = store(tmp_path / "r", cell(0), cell(1))
    store(folder, cell(0), environment=OTHER)
    ids = [ENVIRONMENT.environment_id, OTHER.environment_id]
    with pytest.raises(ValueError, match="expected one environment") as caught:
        document(folder)
    assert all(each in str(caught.value) for each in (*ids, "another machine, 1 cells"))
    assert not (folder / "benchmark.json").exists()
    found = document(folder, environment=ids[1])
    assert len(found["benchmarks"]) == 1
    assert found["machine_info"]["hrbp"]["device_name"] == "another machine"
    assert found["commit_info"]["id"] == "unversioned"
    assert set(pd.read_csv(export.export(folder, "csv").path)["environment"]) == set(ids)
    done = export.export(folder, "csv", environment=ids[0])
    assert len(pd.read_csv(done.path)) == sum(done.counts.values()) == 2
    told = run_cli(folder, "--environment", "none")
    assert (told.exit_code, "got 'none'" in told.stderr) == (2, True)


def test_an_environment_without_cells_does_not_count(tmp_path):
    folder = store(tmp_path / "r", cell(0))
    store(folder, environment=OTHER)
    assert len(document(folder)["benchmarks"]) == 1


def test_odd_names_stay_on_their_line(tmp_path):
    made = [cell(0), cell(1)]
    cases = [dataclasses.replace(m.cell.case, layer=ODD) for m in made]
    made = [
        dataclasses.replace(m, cell=dataclasses.replace(m.cell, case=case, impl=impl))
        for m, case, impl in zip(made, cases, ("block_sparse", "dense"), strict=True)
    ]
    folder = store(tmp_path / "r", *made)
    names = {b["name"] for b in document(folder)["benchmarks"]}
    assert "conv [bold]é漢[/bold] {0} %s [31m[fprop-0.25-4x8-float32-dense-cold]" in names
    told = compare(tmp_path, folder / "benchmark.json", "--name", "long")
    assert told.returncode == 0, told.stderr
    assert ": 2 tests" in told.stdout
    assert "\x1b" not in told.stdout
    told = run_cli(folder, "--format", "csv")  # half of a UTF-16 pair has no UTF-8
    assert (told.exit_code, "surrogates not allowed" in told.stderr) == (2, True)
    assert not list(folder.glob("*results.csv*"))


def test_an_odd_layer_survives_a_table(tmp_path):
    layer = 'a,"b"\nc é漢 [bold]'
    folder = synthetic.write(tmp_path / "r", [])
    named = [synthetic.measure(c, synthetic.ENVIRONMENT.environment_id)
             for c in synthetic.cells({"conv3_1": layer})]  # fmt: skip
    synthetic.write(folder, named)
    for form, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        assert layer in set(read(export.export(folder, form).path)["layer"])


def test_figures_that_are_not_finite_are_null(tmp_path):
    folder = store(tmp_path / "r", cell(0, errors={"max_abs": 1.0}, prep_s=0.5))
    path = folder / "results.jsonl"
    text = path.read_text().replace('"max_abs": 1.0', '"max_abs": NaN')
    path.write_text(text.replace('"prep_s": 0.5', '"prep_s": Infinity'))
    written = export.export(folder, "pytest-benchmark").path.read_text()
    facts = json.loads(written, parse_constant=pytest.fail)["benchmarks"][0]["extra_info"]
    assert (facts["errors"]["max_abs"], facts["prep_s"]) == (None, None)


def test_samples_that_are_not_finite_are_no_store(tmp_path):
    folder = store(tmp_path / "r", cell(0, (0.5, 0.25)))
    path = folder / "results.jsonl"
    path.write_text(path.read_text().replace("[0.5, 0.25]", "[NaN, 0.25]"))
    with pytest.raises(StoreError, match="line 1"):
        export.export(folder, "csv")


def test_statistics_that_overflow_are_a_gap(tmp_path):
    folder = store(tmp_path / "r", cell(0, (1.5e308, 1.6e308)), cell(1))
    found = document(folder)
    assert len(found["benchmarks"]) == 1
    assert [g["reason"] for g in found["hrbp_not_measured"]] == [benchmark_json.OVERFLOW]
    assert compare(tmp_path, folder / "benchmark.json").returncode == 0


@pytest.mark.parametrize("content", [None, "", '{"schema": 1, "torn'])
def test_a_folder_without_results_is_refused(tmp_path, content):
    folder = tmp_path / "r"
    folder.mkdir()
    if content is not None:
        (folder / "results.jsonl").write_text(content)
    told = run_cli(folder, "--format", "csv")
    assert (told.exit_code, told.stderr.startswith("error: expected")) == (2, True)
    assert not list(folder.glob("*.csv"))
    assert run_cli(tmp_path / "nowhere").exit_code == 2


def test_a_torn_last_line_is_told(folder):
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"schema": 1, "cell')
    told = run_cli(folder, "--format", "csv")
    assert told.exit_code == 0
    assert "a torn last line was left out" in told.output
    assert "1 ok" in told.output


def test_an_unknown_format_is_refused(folder):
    with pytest.raises(ValueError, match="expected a format of pytest-benchmark, csv, parquet"):
        export.export(folder, "xml")
    assert run_cli(folder, "--format", "xml").exit_code == 2
    assert [f.value for f in cli_export.Form] == list(FILES)


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("results", "got a folder"),
        ("pipe", "got a device or a pipe"),
        ("results/results.jsonl", "expected another file than one of a store"),
        ("results/environment.json", "expected another file than one of a store"),
        ("results/check.jsonl", "expected another file than one of a store"),
        ("results/results.jsonl/x.csv", "expected a folder"),
        ("/proc/x.csv", "expected to write"),
    ],
)
def test_an_export_replaces_nothing_but_an_export(folder, tmp_path, out, reason):
    before = {p: p.read_bytes() for p in folder.iterdir()}
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=reason):
        export.export(folder, "csv", tmp_path / out)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert ceilings_file.FILE in export.KEPT


def test_a_write_that_fails_keeps_the_earlier_export(folder, monkeypatch):
    path = export.export(folder, "csv").path
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(export.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        export.export(folder, "csv")
    assert path.read_bytes() == before
    assert not list(folder.glob("*.tmp"))


def test_out_is_made_with_its_folder_and_links_are_followed(folder, tmp_path):
    out = tmp_path / "new" / "x.json"
    assert run_cli(folder, "--out", out).exit_code == 0
    link = tmp_path / "link.json"
    link.symlink_to(out)
    out.write_text("old")
    export.export(folder, "pytest-benchmark", link)
    assert link.is_symlink()
    assert json.loads(out.read_text())["benchmarks"]
