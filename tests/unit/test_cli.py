"""The command `hedflow`, as a process and in one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from hedflow.cli import main


def test_check_says_what_a_configuration_uses(repo, monkeypatch, capsys):
    monkeypatch.chdir(repo)
    assert main(["check"]) == 0
    assert "sources CCLE, GDSCv1, GDSCv2; 6 files" in capsys.readouterr().out


def test_a_mistake_is_one_sentence_and_status_1(tmp_path):
    (tmp_path / "config.yaml").write_text("expriments: {}\n")
    command = [sys.executable, "-m", "hedflow.cli", "check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("hedflow: config.yaml: unknown key 'expriments'; did you mean experiments?")
    assert done.stderr.count("\n") == 1


def test_plan_lists_the_runs_of_the_bundle_that_is_there(world_bundle, tmp_path, repo, monkeypatch, capsys):
    monkeypatch.chdir(repo)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bundle").symlink_to(world_bundle.folder)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"results": str(tmp_path / "results")}))
    assert main(["plan", "--config", str(tmp_path / "config.yaml")]) == 0
    out = capsys.readouterr().out
    assert "losses: 20 runs (4 methods, 5 splits, 1 seed)" in out
    assert "uno_small.mae_poly-2.drug_blind-f0.s0" in out
    assert "  time    " in out


def test_plan_of_many_runs_lists_the_first_and_the_last(world_bundle, tmp_path, repo, monkeypatch, capsys):
    monkeypatch.chdir(repo)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bundle").symlink_to(world_bundle.folder)
    model = {"width": 8, "tower_depth": 1, "head_depth": 1, "drug_features": ["fingerprints"]}
    experiment = {"models": ["m"], "split": {"folds": 3}, "seeds": list(range(10)), "training": {"epochs": 1}}
    config = {"results": str(tmp_path / "results"), "models": {"m": model}, "experiments": {"e": experiment}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    listed = {}
    for option in ([], ["--all"]):
        assert main(["plan", "--config", str(tmp_path / "config.yaml"), *option]) == 0
        out = capsys.readouterr().out
        assert "e: 30 runs (1 method, 3 splits, 10 seeds)" in out
        listed["--all" in option] = [line for line in out.splitlines() if "m.mse.drug_blind" in line or "more" in line]
    assert len(listed[True]) == 30
    assert listed[False][10] == "... 10 more (--all lists them) ..."
    assert listed[False][:10] + listed[False][11:] == listed[True][:10] + listed[True][-10:]


def test_simulate_writes_a_world_that_a_configuration_can_use(tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "world"), "--cells", "12", "--drugs", "6"]) == 0
    data = {"mirror": str(tmp_path / "world"), "registry": str(tmp_path / "world" / "datasets.csv")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    assert main(["check", "--config", str(tmp_path / "config.yaml")]) == 0
    assert "CCLE, CTRPv2, gCSI, GDSCv1, GDSCv2" in capsys.readouterr().out


def test_an_unknown_command_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        main(["chek"])
    assert "check" in capsys.readouterr().err


def test_check_names_the_tables_that_only_a_mirror_has(repo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(repo)
    (tmp_path / "config.yaml").write_text("data: {sources: [CTRPv2]}\n")
    assert main(["check", "--config", str(tmp_path / "config.yaml")]) == 0
    out = capsys.readouterr().out
    assert "drugs they name may be missing: structures/v20.meta.per_compound.txt, structures/sangstructures.csv." in out


def test_summary_before_any_run_is_one_sentence(tmp_path, capsys):
    assert main(["summary", "--results", str(tmp_path)]) == 1
    assert "no such file; run `snakemake` first" in capsys.readouterr().err


def test_table_has_a_line_a_method_and_says_what_beats_the_naive_ones(written, made, capsys):
    def lines(*more):
        assert main(["table", "e", "--results", str(written), *more]) == 0
        return capsys.readouterr().out.splitlines()

    methods = made["methods"].query("source == 'all'").set_index("method")
    whole = lines()
    assert whole[0].startswith("| method | R² | MAE | MAE, AUC < 0.5 | recall@")
    assert len(whole) == 2 + len(methods) + 2
    for method, row in methods.iterrows():
        line = next(line for line in whole if str(method) in line)
        assert f"| {row['mae']:.3f} [{row['mae_lower']:.3f},\u00a0{row['mae_upper']:.3f}] |" in line
        assert ("(naive)" in line) == row["naive"]
    assert "A lower squared error than the best naive baseline (tanimoto_knn): none." in whole[-1]
    source = made["methods"]["source"].iloc[-1]
    assert lines("--source", source)[:2] != whole[:2] or lines("--source", source)[2] != whole[2]
    assert main(["table", "e", "--results", str(written), "--source", "Nowhere"]) == 1
    assert "no rows of 'Nowhere' were tested; there are all, " in capsys.readouterr().err
    assert main(["table", "e", "--results", str(written), "--lists", "Nowhere"]) == 1
    assert "'Nowhere' has no lists of drugs that are ranked; there are " in capsys.readouterr().err
    assert main(["table", "nothing", "--results", str(written)]) == 1
    assert "run `snakemake` first" in capsys.readouterr().err
