"""What `snakemake -n` says of the plan before Snakemake's own table."""

from __future__ import annotations

import shutil


def files_of(project) -> dict[str, int]:
    """Every file of the results with the time of its last change."""
    return {str(path): path.stat().st_mtime_ns for path in (project.folder / "results").rglob("*") if path.is_file()}


def lines_of(output: str, experiment: str = "toy") -> list[str]:
    """The lines about an experiment, which stand before Snakemake's table."""
    lines = output.split("Job stats:")[0].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"{experiment}: "))
    return [lines[first], *(line for line in lines[first + 1 : first + 6] if line.startswith("  "))]


def test_a_dry_run_says_what_is_left_and_writes_nothing(project):
    before = files_of(project)
    done = project.snakemake("-n")
    assert done.returncode == 0, done.stdout
    assert lines_of(done.stdout)[0] == "toy: 4 runs (2 methods, 2 splits, 1 seed); all of them are finished"
    project.configure(lambda c: c["experiments"]["toy"].update(seeds=[0, 1]))
    done = project.snakemake("-n", "--cores", "1")
    assert done.returncode == 0, done.stdout
    first, time, memory, disk, basis = lines_of(done.stdout)
    assert first == "toy: 8 runs (2 methods, 2 splits, 2 seeds); 4 finished, 4 to do"
    assert time.startswith("  time    ")
    assert "on 1 core, 1 job at once" in time
    assert memory == "  memory  1 GB a job, 1 GB together"
    assert disk.startswith("  disk    ")
    assert "rows/s on cpu, from 4 finished runs" in basis
    assert files_of(project) == before


def test_a_run_says_nothing_of_it(finished):
    assert "  memory  " not in (finished.folder / "first.log").read_text()


def test_a_dry_run_without_a_plan_says_how_to_get_one(project):
    shutil.rmtree(project.folder / "results")
    done = project.snakemake("-n")
    assert done.returncode == 0, done.stdout
    assert "hedflow: no plan yet: `snakemake plans` makes the bundle and the plans" in done.stdout


def test_what_cannot_be_read_keeps_no_one_from_a_dry_run(project):
    """A cut record is of a run that is to be done; a broken file of speeds is named."""
    record = next((project.folder / "results/toy/runs").glob("*/run.json"))
    record.write_text(record.read_text()[:20])
    done = project.snakemake("-n")
    assert done.returncode == 0, done.stdout
    assert "3 finished, 1 to do" in lines_of(done.stdout)[0]
    (project.folder / "results/speed.json").write_text("{")
    done = project.snakemake("-n")
    assert done.returncode == 0, done.stdout
    assert "toy: no estimate:" in done.stdout
    assert "results/speed.json: expected JSON" in done.stdout
    assert "Traceback" not in done.stdout
