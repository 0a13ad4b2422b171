"""From Snakemake's jobs to tasks: which way a job is run, what it needs, what the runner is told."""

from __future__ import annotations

import os
import pickle
import re
import tempfile
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from snakemake.common import get_snakemake_searchpaths
from snakemake.common.tbdstring import TBDString
from snakemake.io import is_flagged
from snakemake.iocontainers import Snakemake
from snakemake.resources import Resources
from snakemake.script import get_source
from snakemake.settings.types import SharedFSUsage
from snakemake.shell import shell
from snakemake.sourcecache import SourceCache
from snakemake_interface_executor_plugins.settings import DeploymentMethod

from .executor import Executor, wildcards_of
from .tasks import Benchmark, Order, Script, Task
from .tended import remove_old

DEVICE_RESOURCES = ("gpu", "gpus")
SYSTEM_TMPDIR = "system_tmpdir"
# What Snakemake itself puts into a command, whatever a workflow calls so.
JOB_NAMES = {
    "input",
    "output",
    "params",
    "wildcards",
    "threads",
    "resources",
    "log",
    "jobid",
    "name",
    "rule",
    "rulename",
}


class Converter:
    """Makes tasks of the jobs of one workflow."""

    def __init__(self, executor: Executor, durations: dict[str, float], logs: Path) -> None:
        self.executor = executor
        self.workflow = executor.workflow
        self.durations = durations
        self.logs = logs
        self.scripts: dict[Any, Any] = {}
        self.configs: dict[tuple[int, str], tuple[bytes, bytes]] = {}
        self.pickles: dict[bytes, bytes] = {}
        settings = self.workflow.deployment_settings.deployment_method
        self.conda = DeploymentMethod.CONDA in settings
        self.apptainer = DeploymentMethod.APPTAINER in settings
        self.modules = DeploymentMethod.ENV_MODULES in settings
        self.shared = self.workflow.storage_settings.shared_fs_usage == SharedFSUsage.all()
        self.default_tmpdir = tempfile.gettempdir()
        self.search_paths = tuple(get_snakemake_searchpaths())
        self.guesses = set(Resources.DEFAULTS["full"].values())

    def task(self, job: Any, number: int) -> Task:
        """The task of a job that has been prepared (`is_fast`) or that the ordinary job command prepares itself."""
        resources = job.resources  # once: Snakemake looks for them anew each time
        name = job.name if job.is_group() else f"{job.rule.name} {wildcards_of(job)}".strip()
        return Task(
            id=number,
            name=name,
            cores=max(1, int(job.threads)),
            devices=self.devices(job, resources),
            mem_mb=self.stated(job, "mem_mb", resources),
            priority=int(job.priority),
            expected=self.expected(job, resources),
            affinity=str(resources.get("affinity", "")),
            # What saves its state can be cut anywhere; all else must end before the allocation does.
            needs_s=0.0 if resources.get("resume") else self.stated(job, "runtime", resources) * 60.0,
            payload=self.order(job, number, resources),
        )

    def is_fast(self, job: Any) -> bool:
        """Whether a job may skip Snakemake's own job command: a plain `shell:` or Python `script:` job."""
        if job.is_group() or not self.shared or job.is_shadow or job.is_template_engine or job.is_cwl or job.is_wrapper:
            return False
        if (self.conda and job.conda_env_spec) or (self.apptainer and job.container_img_url):
            return False
        if self.modules and job.env_modules:
            return False
        if self.workflow.workflow_settings.cache is not None and job.rule.cache:
            return False
        if any(file.is_storage for file in (*job.input, *job.output, *job.log)):
            return False
        if job.is_shell:
            # The number of a benchmark's repeat is in no job's command yet.
            return (job.benchmark_repeats or 1) == 1 or "bench_iteration" not in job.rule.shellcmd
        return bool(job.is_script) and self.script_source(job)[2] == "python"

    async def prepare(self, job: Any) -> None:
        """What Snakemake does before a job begins, but for removing old output, which the runner does.

        A job may wait long, and be withdrawn; until it begins, what an earlier run made is kept.
        """
        self.evaluate_tmpdir(job)
        job.remove_existing_output = keep_output
        try:
            await job.prepare()
        finally:
            del job.remove_existing_output

    def discard_output(self, job: Any) -> None:
        """Remove what a job has made of its output so far, as before it begins anew. OSError if that cannot be done."""
        for one in job.jobs if job.is_group() else [job]:
            remove_old(removable(one.output))
            for path in one.output:
                if is_flagged(path, "update"):
                    self.workflow.persistence.restore_output(Path(path))

    def evaluate_tmpdir(self, job: Any) -> None:
        """Give a fast-path job the resource that Snakemake leaves open for jobs elsewhere."""
        resources = job.resources
        if not isinstance(resources.get("tmpdir"), TBDString):
            return
        if getattr(job.rule.resources["tmpdir"], "raw", None) == SYSTEM_TMPDIR:
            # All resources evaluated anew, as below, would cost a fifth of all that Snakemake does for a small job.
            resources[resources._names["tmpdir"][0]] = self.default_tmpdir
            resources._set_name("tmpdir", resources._names["tmpdir"][0])
        else:
            job._resources = job.rule.expand_resources(job.wildcards_dict, job.input, job.attempt)

    def expected(self, job: Any, resources: Any) -> float:
        """Expected duration in seconds: the stated `runtime`, else what the rule took before, else 0."""
        stated = self.stated(job, "runtime", resources)
        if stated:
            return stated * 60.0
        return 0.0 if job.is_group() else self.durations.get(job.rule.name, 0.0)

    def devices(self, job: Any, resources: Any) -> int:
        """Number of accelerators that a job asks for."""
        return max((self.stated(job, name, resources) for name in DEVICE_RESOURCES), default=0)

    def stated(self, job: Any, name: str, resources: Any) -> int:
        """One of a job's resources as a number, 0 where the rule does not state it (a built-in guess of mem_mb is no
        statement).
        """
        value = resources.get(name, 0)
        if isinstance(value, (TBDString, str)) or not value:
            return 0
        if name == "mem_mb":
            members = job.jobs if job.is_group() else [job]
            if all(self.is_guess(one.rule.resources) for one in members):
                return 0
        return int(value)

    def is_guess(self, resources: Any) -> bool:
        """Whether a rule's memory is Snakemake's built-in guess, which it makes for all but local executors."""
        found = resources.get("mem_mb") or resources.get("mem")
        return getattr(found, "raw", None) in self.guesses

    def order(self, job: Any, number: int, resources: Any) -> Order:
        """What the runner is told."""
        fast = self.is_fast(job)
        limits: dict[str, Any] = {
            "limit_s": self.stated(job, "runtime", resources) * 60.0,
            "limit_mb": 0
            if self.executor.workflow.executor_settings.no_memory_limit
            else self.stated(job, "mem_mb", resources),
            "remove": removable([*job.output, *job.log]) if fast else (),
            "resume": str(resources.get("resume", "")),
            "stage": tuple(map(os.path.abspath, filter(None, str(resources.get("stage", "")).split(os.pathsep)))),
            "log": str(self.logs / f"{file_name(job)}-{number}.log"),
            "threads": max(1, int(job.threads)),
        }
        if not fast:
            return Order(command=self.executor.format_job_exec(job), **limits)
        temporary = str(resources.get("tmpdir", ""))
        if temporary and temporary != self.default_tmpdir:
            limits["environment"] = dict.fromkeys(("TMPDIR", "TMP", "TEMPDIR", "TEMP"), temporary)
        benchmark = self.benchmark(job) if job.benchmark is not None else None
        shell_exec = resources.get("shell_exec")
        if job.is_shell:
            shell_path = shell_exec or shell.get_executable() or "/bin/sh"
            # As snakemake.shell does: prefix (set -euo pipefail for bash), command, suffix.
            text = self.shell_command(job)
            command = " ".join((shell._get_process_prefix(shell_exec), text, shell._process_suffix)).strip()
            return Order(command=command, shell=str(shell_path), benchmark=benchmark, **limits)
        return Order(script=self.script(job, shell_exec), benchmark=benchmark, **limits)

    def shell_command(self, job: Any) -> str:
        """The command as the rule's own code would format it: with the names of its module, not the main workflow's."""
        names = job.rule.run_func.__globals__
        if names is self.workflow.globals:
            return str(job.shellcmd)
        return str(job.format_wildcards(job.rule.shellcmd, **{key: names[key] for key in names.keys() - JOB_NAMES}))

    def script_source(self, job: Any) -> Any:
        """(source file, text, language, is local, cached path) of a job's script; read once for each path."""
        path = job.rule.script
        key = (job.rule.name, str(path))
        if key not in self.scripts:
            cache = SourceCache(self.workflow.sourcecache.cache_path, self.workflow.sourcecache.runtime_cache_path)
            found = get_source(path, cache, job.rule.basedir, job.wildcards, job.params)
            if "{" in str(path):
                return found  # another job of the rule may have another script
            self.scripts[key] = found
        return self.scripts[key]

    def script(self, job: Any, shell_exec: str | None) -> Script:
        """The script and its `snakemake` object, as snakemake.script.PythonScript gives them to an interpreter."""
        file, source, _, is_local, cached = self.script_source(job)
        folder = file.get_basedir().get_path_or_uri(secret_free=True)
        paths = list(self.search_paths)
        if cached:
            paths.append(str(Path(cached).parent))
        path = file.get_path_or_uri(secret_free=True)
        if is_local:
            paths.append(folder)
            path = str(Path(path).resolve())
        config, key = self.config_of(job, str(path), source)
        given = Snakemake(
            job.input,
            job.output,
            job.params,
            job.wildcards,
            job.threads,
            job.resources,
            job.log,
            None,
            job.rule.name,
            None,
            folder,
        )
        return Script(str(path), source, tuple(paths), pickle.dumps(given, protocol=4), shell_exec, config, key)

    def config_of(self, job: Any, path: str, source: str) -> tuple[bytes, bytes]:
        """The pickled config of a job's rule and a name for it, path and source; made once for each."""
        config = job.rule.run_func.__globals__["config"]
        found = self.configs.get((id(config), path))
        if found is None:
            pickled = pickle.dumps(config, protocol=4)
            pickled = self.pickles.setdefault(pickled, pickled)  # one object, so that a message holds it once
            key = blake2b(f"{path}\0{source}\0".encode() + pickled).digest()
            found = self.configs[id(config), path] = pickled, key
        return found

    def benchmark(self, job: Any) -> Benchmark:
        """What `benchmark:` asks for."""
        shown = {
            "jobid": job.jobid,
            "rule_name": job.rule.name,
            "wildcards": job.wildcards,
            "params": job.params,
            "resources": job.resources,
            "input": job.input._plainstrings(),
            "threads": job.threads,
        }
        return Benchmark(
            path=str(job.benchmark),
            repeats=job.benchmark_repeats or 1,
            extended=bool(self.workflow.output_settings.benchmark_extended),
            job=pickle.dumps(shown, protocol=4),
        )


async def keep_output() -> None:
    """Remove nothing."""


def removable(files: Iterable[Any]) -> tuple[str, ...]:
    """Which files are removed before a job begins, as Job.remove_existing_output does; folders end with a slash."""
    files = [path for path in files if not is_flagged(path, "update")]
    return tuple(f"{path}/" if is_flagged(path, "directory") else str(path) for path in files)


def file_name(job: Any) -> str:
    """A file name that tells a job: rule and wildcards, shortened to what file systems take."""
    words = [job.name] if job.is_group() else [job.rule.name, *map(str, job.wildcards_dict.values())]
    return re.sub(r"[^A-Za-z0-9._=-]+", "_", "-".join(words))[:120]
