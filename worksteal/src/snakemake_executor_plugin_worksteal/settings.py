"""What a user can set: `--worksteal-...` on the command line, or the same keys in a profile."""

# ruff: noqa: UP045
# Snakemake makes argparse types of the fields' types: it knows Optional[X], not `X | None`, nor types as text.
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

# The least that a number may be.
LEAST = {
    "nodes": 1,
    "slots": 1,
    "memory_mb": 1,
    "reuse": 1,
    "grace": 0,
    "batch_cores": 1,
    "pools": 1,
    "follow_ups": 0,
    "reconnect": 0,
    "margin": 0,
    "restarts": 0,
    "resume_attempts": 0,
}


@dataclass
class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc]
    """Settings of the executor, with their help texts."""

    launcher: Optional[str] = field(
        default="auto",
        metadata={
            "help": "How the pool is started. 'auto': mpiexec over the nodes inside a Slurm or PBS allocation "
            "of several nodes, else one process on this machine. 'local': one process, no MPI. "
            "'mpiexec' or 'srun'. Anything else is a command in which {nodes} is the number of nodes, "
            "to be followed by the agent's own command, e.g. 'mpiexec -n {nodes} -ppn 1'.",
        },
    )
    nodes: Optional[int] = field(
        default=None,
        metadata={
            "help": "Number of nodes (agents, MPI ranks). Default: the nodes of the allocation, else 1.",
        },
    )
    slots: Optional[int] = field(
        default=None,
        metadata={
            "help": "Cores that tasks may use on each node. Default: --cores where the pool is one process on "
            "this machine and --cores is a number, else all that the agent may use, shared among the "
            "agents of one machine.",
        },
    )
    devices: Optional[str] = field(
        default="auto",
        metadata={
            "help": "Accelerators that tasks may use on each node (resource gpu): 'auto' counts them, a "
            "number, or a list such as '0,2'. 0 leaves the devices to the tasks, with no mask set.",
        },
    )
    environment: Optional[str] = field(
        default=None,
        metadata={
            "help": "Variables that agents and jobs have, separated by commas, e.g. "
            "'ZE_FLAT_DEVICE_HIERARCHY=FLAT,OMP_PROC_BIND=false'; they win over Snakemake's own.",
        },
    )
    memory_mb: Optional[int] = field(
        default=None,
        metadata={
            "help": "Memory in MB that tasks may ask for (mem_mb) on each node. Default: what the node or its "
            "cgroup has.",
        },
    )
    no_memory_limit: bool = field(
        default=False,
        metadata={
            "help": "Let jobs use more memory than the mem_mb that their rule states (they are ended otherwise).",
        },
    )
    preload: Optional[str] = field(
        default=None,
        metadata={
            "help": "Python modules that the fork server imports in advance for script: jobs, separated by "
            "commas or spaces, e.g. 'torch,pytorch_lightning'. They must not start threads or touch a "
            "device when imported.",
        },
    )
    reuse: Optional[int] = field(
        default=1,
        metadata={
            "help": "How many script: jobs of the same script and config one process may run, one after the other. "
            "With more than 1, such a job finds imported modules and all that they keep (caches, open figures, "
            "settings) as the job before left them.",
        },
    )
    grace: Optional[int] = field(
        default=10,
        metadata={
            "help": "Seconds between SIGTERM and SIGKILL for a job that has to end (limit, Ctrl-C).",
        },
    )
    submit: Optional[str] = field(
        default="no",
        metadata={
            "help": "'slurm' or 'pbs': run the pool as a batch job that is submitted from here (a login node) and "
            "connects back; needs the extra 'batch' (psij-python) and a walltime. Default 'no': start it here or in "
            "the allocation that Snakemake runs in.",
        },
    )
    account: Optional[str] = field(
        default=None,
        metadata={"help": "Account or project that a batch job is charged to (submit)."},
    )
    queue: Optional[str] = field(
        default=None,
        metadata={"help": "Queue or partition of a batch job (submit)."},
    )
    batch_cores: Optional[int] = field(
        default=None,
        metadata={
            "help": "Cores that a batch job asks for on each node, and with them the slots. Default: whole nodes, "
            "which no other job shares, and all cores of them.",
        },
    )
    batch_options: Optional[str] = field(
        default=None,
        metadata={
            "help": "Further options of a batch job, as they are written after #SBATCH or #PBS, e.g. "
            "'--constraint=gpu --gpus-per-node=4' or '-l filesystems=home:flare'.",
        },
    )
    preamble: Optional[str] = field(
        default=None,
        metadata={
            "help": "Commands of bash that a batch job runs before its agents start, e.g. 'module load frameworks'; "
            "agents and jobs have the variables that they leave (submit).",
        },
    )
    pools: Optional[int] = field(
        default=1,
        metadata={"help": "How many batch jobs share the work at one time (submit)."},
    )
    follow_ups: Optional[int] = field(
        default=10,
        metadata={
            "help": "How many batch jobs more may be submitted when the first have ended and work is left (submit).",
        },
    )
    queue_wait: Optional[str] = field(
        default=None,
        metadata={
            "help": "How long a batch job may wait until it begins, as HH:MM:SS or a number of minutes; then the run "
            "ends with the batch system's reason. Default: for ever.",
        },
    )
    reconnect: Optional[int] = field(
        default=120,
        metadata={
            "help": "Seconds for which a pool that is a batch job goes on and looks for Snakemake when the connection "
            "is lost, before its jobs are told to end.",
        },
    )
    margin: Optional[int] = field(
        default=None,
        metadata={
            "help": "Seconds before the end of the allocation at which running jobs are told to end (SIGTERM, SIGKILL "
            "after the grace). A job whose runtime would not be over by then is not begun, unless it can go on later "
            "(resource resume). Default: the grace and 30 seconds.",
        },
    )
    walltime: Optional[str] = field(
        default=None,
        metadata={
            "help": "How long the pool may live, as HH:MM:SS, D-HH:MM:SS or a number of minutes. Default: inside an "
            "allocation what Slurm or PBS says is left of it, else for ever.",
        },
    )
    restarts: Optional[int] = field(
        default=3,
        metadata={
            "help": "How often a pool that died is started again with no job having finished in between.",
        },
    )
    resume_attempts: Optional[int] = field(
        default=3,
        metadata={
            "help": "How often a job that ends with status 75 (it has saved its state and is to be run again) is run "
            "again in this run with no progress in between: nothing changed in the file or folder that its "
            "rule names as resource 'resume'.",
        },
    )
    trace: bool = field(
        default=False,
        metadata={
            "help": "Write trace.json (opens in Perfetto or chrome://tracing) and, with matplotlib, utilisation.png.",
        },
    )
    stage_dir: Optional[str] = field(
        default="auto",
        metadata={
            "help": "Where each node keeps copies of what jobs name as resource 'stage': a folder on the node's own "
            "disk, in which $NAMES of the node's variables, {host} and {rank} are filled in. 'auto': $TMPDIR or "
            "/tmp if the pool is on several machines, or on another than Snakemake; else nothing is copied. "
            "'none': nothing is copied.",
        },
    )
    stage_software: Optional[Path] = field(
        default=None,
        metadata={
            "help": "A folder, or an archive (tar.zst, tar.gz, ...) that is unpacked, which every node copies to its "
            "own disk before the first job; jobs find it at $WORKSTEAL_SOFTWARE.",
        },
    )
    folder: Optional[Path] = field(
        default=None,
        metadata={
            "help": "Where the pool keeps its files (one folder a run: output of jobs, journals, summary.json, "
            "trace.json); all nodes must see it. Default: .snakemake/worksteal in the working "
            "directory.",
        },
    )
    secret_file: Optional[Path] = field(
        default=None,
        metadata={
            "help": "A file only you can read (0600) with the secret by which Snakemake and the pool know each "
            "other, 16 bytes or more. Default: a new random secret for each run, in the run's folder, "
            "removed at its end.",
        },
    )
    address: Optional[str] = field(
        default=None,
        metadata={
            "help": "Where Snakemake listens for its pool: 'unix' (a pool on this machine), or 'tcp:HOST:PORT' "
            "(port 0: any). Default: a Unix socket for a pool of one process, else TCP on all interfaces, "
            "found by this host's name.",
        },
    )
    no_progress: bool = field(
        default=False,
        metadata={
            "help": "Show no progress (by default one live line on a terminal, elsewhere a line a minute).",
        },
    )


def check_ranges(settings: ExecutorSettings) -> None:
    """ValueError, with a sentence, if a number is less than makes sense."""
    for name, least in LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{name.replace('_', '-')} is {value}; it must be {least} or more")


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
    pass_group_args=True,
)
