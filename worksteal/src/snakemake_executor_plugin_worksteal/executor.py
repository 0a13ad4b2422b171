"""The executor: Snakemake's jobs in, Snakemake's callbacks out; the pool does the rest."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.settings import ExecMode

from .allocation import seconds_of
from .batch import BatchError, batch_system, wish_of
from .launch import Launch, LaunchError, allocated_nodes, choose_launch, need_mpi4py
from .node import NodeError, find_devices
from .pieces import Pieces, next_piece
from .profiles import ProfileError, check_profiles, given_profiles
from .session import FILE, SOCKET_FOLDER, Session, SessionError, make_secret, parse_variables, remove_socket
from .settings import check_ranges
from .tasks import Result, Task

if TYPE_CHECKING:
    from .channel import Listener
    from .pool import Pool
    from .pools import Pools
    from .progress import Progress

DURATIONS, SUMMARY = "durations.json", "summary.json"
# At most every so many seconds, and so many times what it takes, the summary is written while the pool works.
SUMMARY_S, SUMMARY_SHARE = 1.0, 50
# Weight of the newest duration in what a rule is expected to take.
NEWEST = 0.2
# Jobs are prepared and handed over in batches that grow to this size: the first starts at once, the rest costs little.
LARGEST_BATCH = 64
# What lies between the last SIGKILL for a job and the end of the allocation, if the setting `margin` does not say.
MARGIN_S = 30


@dataclass(slots=True)
class Entry:
    """A job that the pool has, and what Snakemake knows it by."""

    info: SubmittedJobInfo
    rule: str
    submitted: float
    fast: bool
    pieces: Pieces = field(default_factory=Pieces)


class Executor(RealExecutor):  # type: ignore[misc]
    """Runs jobs in a pool of agents.

    Callbacks come from the pool's thread, `run_jobs` and the rest from Snakemake's.
    """

    def __post_init__(self) -> None:
        self.settings = self.workflow.executor_settings
        self._entries: dict[int, Entry] = {}
        self._numbers = itertools.count()
        self._pool: Pool | Pools | None = None
        self._ended = False
        self._summary_due = 0.0
        self._draining = self._saving = False
        self._held: list[Entry] = []  # too little time is left for them
        self._late = 0
        self._done = self._failed = self._running = self._later = self._unfinished = self._begun = 0
        self._waits = {"mean": 0.0, "max": 0.0}
        self._lock = threading.Lock()
        if sys.platform != "linux":
            raise WorkflowError("worksteal runs on Linux only: it watches its jobs through /proc and prctl")
        if self.workflow.remote_execution_settings.immediate_submit:
            raise WorkflowError("worksteal does not do --immediate-submit: its jobs live no longer than Snakemake")
        try:
            check_ranges(self.settings)
            inside = allocated_nodes() > 0  # then there is nothing to ask a batch system for
            self.submits = (self.settings.submit or "no") != "no" and not inside
            check_profiles(given_profiles(sys.argv[1:]), self.settings, filled=not inside)
            self.walltime_s = seconds_of(self.settings.walltime) if self.settings.walltime else None
            self.queue_wait_s = seconds_of(self.settings.queue_wait) if self.settings.queue_wait else None
            if self.submits:
                self.wish = wish_of(self.settings, self.walltime_s)
                self.launch = Launch(self.settings.submit, self.wish.nodes, ("submit",))
                if self.wish.nodes > 1 and not self.settings.preamble:  # which may bring it
                    need_mpi4py(f"a pool of {self.wish.nodes} nodes")
            else:
                self.launch = self._choose_launch()
            find_devices(self.settings.devices or "auto")
            os.environ.update(parse_variables(self.settings.environment or ""))
        except (LaunchError, NodeError, BatchError, ProfileError, SessionError, ValueError) as error:
            raise WorkflowError(f"worksteal: {error}") from None

    def _choose_launch(self) -> Launch:
        return choose_launch(self.settings.launcher or "auto", self.settings.nodes)

    # What Snakemake asks of an executor that runs its ordinary job command

    def get_exec_mode(self) -> ExecMode:
        """A job that is not on the fast path is a Snakemake process of its own."""
        return ExecMode.REMOTE

    def get_python_executable(self) -> str:
        """This Python: all nodes see the same software."""
        return sys.executable

    def get_job_exec_prefix(self, job: Any) -> str:
        """Where the ordinary job command starts."""
        return f"cd {shlex.quote(str(self.workflow.workdir_init))}"

    def additional_general_args(self) -> str:
        """Keep a job's output to what the job says."""
        return "--quiet progress rules host"

    def get_job_args(self, job: Any, **kwargs: Any) -> str:
        """The job's own share of cores, not the node's."""
        return str(super().get_job_args(job, cores=max(1, int(job.threads))))

    @property
    def cores(self) -> int | str:
        """Cores of the ordinary job command where `get_job_args` does not say."""
        return "all"

    # Jobs in

    def run_job(self, job: Any) -> None:
        """Run one job."""
        self.run_jobs([job])

    def run_jobs(self, jobs: list[Any]) -> None:
        """Hand all ready jobs to the pool, the most urgent first."""
        if self._pool is None:
            self._start()
        converter = self.converter
        order = sorted(jobs, key=lambda job: (-job.priority, -converter.expected(job, job.resources)))
        begin, size = 0, 1
        while begin < len(order):
            self._hand_over(order[begin : begin + size])
            begin, size = begin + size, min(2 * size, LARGEST_BATCH)

    def _hand_over(self, jobs: list[Any]) -> None:
        """Print, prepare and register jobs, and give them to the pool."""
        from snakemake.exceptions import print_exception

        assert self._pool is not None
        self._summarise()
        errors = self.workflow.async_run(self._prepare(jobs))
        tasks = []
        for job, error in zip(jobs, errors, strict=True):
            info = SubmittedJobInfo(job=job)
            number = next(self._numbers)
            format_once(job)
            self.run_job_pre(job)
            try:
                if error is not None:
                    raise error
                task = self.converter.task(job, number)
            except Exception as problem:
                print_exception(problem, self.workflow.linemaps)
                self.report_job_error(info)
                continue
            rule = job.name if job.is_group() else job.rule.name
            with self._lock:
                self._entries[number] = Entry(info, rule, time.time(), self.converter.is_fast(job))
            self.report_job_submission(info)
            tasks.append(task)
        self._submit(tasks)

    def _summarise(self) -> None:
        """The summary so far, for a job that tells of its pool; now and then, since all that has happened is gone
        through.
        """
        begun = time.monotonic()
        if begun >= self._summary_due:
            with suppress(OSError):
                self.trace.write_summary(self.folder / SUMMARY)
            self._summary_due = time.monotonic() + max(SUMMARY_S, SUMMARY_SHARE * (time.monotonic() - begun))

    def _submit(self, tasks: list[Task]) -> None:
        assert self._pool is not None
        self._pool.submit(tasks)
        if self._draining:
            self._pool.withdraw(save=self._saving)

    async def _prepare(self, jobs: list[Any]) -> list[Exception | None]:
        """Let Snakemake prepare the jobs whose own process would otherwise do it; what went wrong, by job."""
        errors: list[Exception | None] = []
        for job in jobs:
            error = None
            try:
                if self.converter.is_fast(job):
                    await self.converter.prepare(job)
            except Exception as problem:
                error = problem
            errors.append(error)
        return errors

    def _start(self) -> None:
        """Start the pool. Done with the first jobs, so that a run with nothing to do starts none."""
        # Not at the top: Snakemake imports every plugin at every start, and while it is itself half imported.
        from .channel import ChannelError, Listener
        from .jobs import Converter
        from .pool import without
        from .progress import Progress
        from .trace import Trace

        base = Path(self.settings.folder or Path(".snakemake") / "worksteal").resolve()
        self.base = base
        self.folder = base / f"{time.strftime('%Y-%m-%dT%H%M%S')}.{os.getpid()}"
        self.folder.mkdir(parents=True, mode=0o700)
        self.durations = read_durations(base / DURATIONS)
        self.converter = Converter(self, dict(self.durations), self.folder / "logs")
        self.trace = Trace(self.folder / "trace.json" if self.settings.trace else None, time.time())
        self.progress: Progress | None = None
        if not self.settings.no_progress:
            self.progress = Progress(sys.stderr)
            self.progress.attach(self.logger)
        try:
            session = self._session()
            listener = Listener(
                bytes.fromhex(session.secret),
                session.address,
                lambda text: self.log(f"worksteal: {text}", warning=True),
            )
            # Where it listens on every interface, the pool finds it by this host's name.
            session.address = listener.address.replace("tcp:0.0.0.0:", f"tcp:{socket.gethostname()}:")
            self._pool = self._make_pool(session, listener)
            self._pool.start()
        except (SessionError, ChannelError, BatchError, OSError, ValueError) as error:
            raise WorkflowError(f"worksteal cannot start: {error}") from None
        if self.launch.gone:
            self.log(f"worksteal: {without(self.launch)}", warning=True)
        self._follow_sigterm()

    def _make_pool(self, session: Session, listener: Listener) -> Pool | Pools:
        """One pool here or in this allocation, or pools that are batch jobs."""
        from .pool import Pool
        from .pools import Policy, Pools

        settings = self.settings
        if self.submits:
            work = self.folder / "batch"
            work.mkdir(mode=0o700)
            system = batch_system(settings.submit, work)
            policy = Policy(settings.pools or 1, settings.follow_ups or 0, settings.restarts, self.queue_wait_s)
            return Pools(system, self.wish, policy, session, self.folder, listener, self)
        return Pool(
            self.launch,
            session,
            self.folder,
            listener,
            self,
            relaunch=self._choose_launch,
            restarts=settings.restarts,
            walltime_s=self.walltime_s,
        )

    def _software(self) -> str:
        """What is staged as software; SessionError where that cannot be."""
        given, folder = self.settings.stage_software, self.settings.stage_dir
        if given is None:
            return ""
        if not given.exists():
            raise SessionError(f"stage-software is {given}, which does not exist")
        if given.is_file() and folder == "none":
            raise SessionError(f"stage-software is the archive {given}, and stage-dir is none: there it is unpacked")
        return str(given.resolve())

    def _session(self) -> Session:
        cores = self.workflow.resource_settings.cores
        slots = self.settings.slots
        if slots is None and self.launch.is_local and isinstance(cores, int) and cores < sys.maxsize:
            slots = cores
        if slots is None and self.submits:
            slots = self.settings.batch_cores
        preload = (self.settings.preload or "").replace(",", " ").split()
        return Session(
            pool=self.folder.name,
            run=str(self.folder),
            address=address_for(self.settings.address, self.launch),
            secret=make_secret(self.settings.secret_file),
            workdir=os.getcwd(),
            environment=dict(os.environ),
            host=socket.gethostname(),
            nodes=self.launch.nodes,
            slots=slots,
            devices=self.settings.devices or "auto",
            memory_mb=self.settings.memory_mb,
            preload=preload,
            launcher=self.settings.launcher or "auto",
            preamble=self.settings.preamble or "",
            walltime_s=self.walltime_s,
            linked=self.submits,
            reconnect_s=float(self.settings.reconnect or 0),
            grace_s=float(self.settings.grace),
            margin_s=float(self.settings.grace + MARGIN_S if self.settings.margin is None else self.settings.margin),
            reuse=self.settings.reuse or 1,
            stage_dir=self.settings.stage_dir or "auto",
            software=self._software(),
        )

    def _follow_sigterm(self) -> None:
        """SIGTERM lets running jobs finish, as with Snakemake's own executors, but for those that can go on later; jobs
        that wait in the pool have not begun.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        snakemakes = signal.getsignal(signal.SIGTERM)

        def follow(number: int, frame: Any) -> None:
            if callable(snakemakes):
                snakemakes(number, frame)
            self._drain(save=True)

        signal.signal(signal.SIGTERM, follow)

    def _drain(self, *, save: bool = False) -> None:
        """Begin nothing more; save: and have what can go on another time save its state and end."""
        self._draining = True
        self._saving = self._saving or save
        if self._pool is not None:
            # Not here: a signal handler may have interrupted whoever holds the pool's lock.
            threading.Thread(target=self._pool.withdraw, kwargs={"save": self._saving}, daemon=True).start()

    # Callbacks out (the pool's thread)

    def started(self, nodes: list[dict[str, Any]], pool: str = "") -> None:
        """The first line says what the pool is; pool: its name, if there are several."""
        hosts = sorted({str(node["host"]) for node in nodes})
        slots, devices = sum(node["cores"] for node in nodes), sum(len(node["devices"]) for node in nodes)
        named = ", ".join(hosts[:4]) + (f" and {len(hosts) - 4} more" if len(hosts) > 4 else "")
        launcher = "" if pool else f", launcher: {'one process, no MPI' if self.launch.is_local else self.launch.name}"
        self.log(
            f"worksteal: {f'{pool}: ' if pool else ''}{count(len(nodes), 'node')} ({named}), {count(slots, 'slot')}, "
            f"{count(devices, 'device')}{launcher}; files: {relative(self.folder)}"
        )
        for node in nodes:
            self.trace.pool(node["rank"], node["host"], node["cores"], len(node["devices"]))

    def finished(self, task: Task, result: Result) -> None:
        """A task has ended."""
        with self._lock:
            entry = self._entries.pop(task.id)
        self._count_wait(max(0.0, result.started - entry.submitted))
        entry.pieces.add(result)
        if result.later and self._goes_on(task, entry, result):
            return
        self.trace.task(task.name, entry.rule, result, entry.pieces.seconds)
        if result.told and result.status is None:
            self._unfinished += 1
            self._forget([entry], complete=False)
            return
        if result.ok:
            self._done += 1
            self._learn(entry.rule, entry.pieces.seconds)
            self.report_job_success(entry.info)
            return
        self._failed += 1
        job = entry.info.job
        self.report_job_error(entry.info, msg=describe_failure(result), **self._about(job, result))

    def _goes_on(self, task: Task, entry: Entry, result: Result) -> bool:
        """A job has saved its state: run it again, or leave it for another run; False if it never gets on."""
        pieces = entry.pieces
        last = self._draining or self._ended
        if not last and pieces.fruitless > (self.settings.resume_attempts or 0):
            result.reason = pieces.why_no_more(task.payload.resume, result.reason)
            return False
        self.trace.piece(task.name, entry.rule, result)
        if last:
            self._leave([entry])
            return True
        why = f", as it {result.reason}," if result.reason else ""
        self.log(f"worksteal: {task.name} has saved its state{why} and goes on")
        entry.submitted = time.time()
        number = next(self._numbers)
        with self._lock:
            self._entries[number] = entry
        logs = [] if entry.info.job.is_group() else list(map(str, entry.info.job.log))
        self._submit([next_piece(task, number, pieces.number, logs)])
        return True

    def _leave(self, entries: list[Entry]) -> None:
        """Jobs that go on in another run. What they have made of their output is removed, so that the next run repeats
        them, whatever its options.
        """
        self._later += len(entries)
        for entry in entries:
            self.trace.leave()
            complete = not self.workflow.execution_settings.keep_incomplete
            try:
                if complete:
                    self.converter.discard_output(entry.info.job)
            except OSError as error:
                self.log(f"worksteal: output of a job that goes on later cannot be removed: {error}", warning=True)
                complete = False
            self._forget([entry], complete=complete)

    def handle_job_success(self, job: Any) -> None:
        """Snakemake is done with a job."""
        super().handle_job_success(job)
        format_anew(job)

    def handle_job_error(self, job: Any) -> None:
        """Snakemake counts a job as failed, for whatever reason: without --keep-going nothing more is to begin."""
        format_anew(job)
        if not self.workflow.execution_settings.keep_going and job.restart_times <= job.attempt - 1:
            self._drain()

    def _about(self, job: Any, result: Result) -> dict[str, Any]:
        """What a failed job's message says beyond Snakemake's own words."""
        about: dict[str, Any] = {}
        if not job.is_group() and job.wildcards_dict:
            about["wildcards"] = wildcards_of(job)
        about["status"] = status_of(result)
        about["node"] = result.host or "unknown"
        if result.tail:
            about["last lines"] = "\n        " + result.tail.rstrip().replace("\n", "\n        ")
        about["all output"] = relative(Path(result.log)) if result.log else "none was printed"
        return about

    def time_up(self, until: float) -> None:
        """The allocation is about to end; the pool has told running jobs to end."""
        self.log(
            f"worksteal: the allocation ends at {time.strftime('%H:%M:%S', time.localtime(until))}: running jobs are "
            "told to end, and no more are begun",
            warning=True,
        )
        self._end_early()

    def no_more(self) -> None:
        """No further pool is to be had."""
        self._end_early()

    def _end_early(self) -> None:
        """Nothing more is to begin, as after a SIGTERM; Snakemake says then that not all is done."""
        self.workflow.scheduler.exit_gracefully()
        self._drain()

    def withdrawn(self, tasks: list[Task], *, begun: bool, late: bool = False) -> None:
        """Tasks that will not begin; begun: some of them may have done so in a pool that has died; late: there is too
        little time left for them.
        """
        with self._lock:
            found = [self._entries.pop(task.id) for task in tasks if task.id in self._entries]
        if late and not begun:
            self._hold(tasks, found)
            return
        self._leave([entry for entry in found if entry.pieces.number])
        others = [entry for entry in found if not entry.pieces.number]
        self._unfinished += len(others) if begun else 0
        self._forget(others, complete=not begun)

    def _hold(self, tasks: list[Task], entries: list[Entry]) -> None:
        """Keep late jobs until there is nothing else to do: as failed ones they would keep others from beginning."""
        if not self._late and tasks:
            self.log(
                f"worksteal: {tasks[0].name} is not begun: its runtime of {tasks[0].needs_s / 60:g} min does not fit "
                "into what is left of the allocation; nor are others of that kind",
                warning=True,
            )
        self._late += len(entries)
        self._held += entries
        if self._draining:
            self._let_go()

    def _let_go(self) -> None:
        """Snakemake forgets the late jobs."""
        held, self._held = self._held, []
        if held:
            self._forget(held, complete=True)

    def _only_late_ones_are_left(self) -> bool:
        """Whether all jobs that could be done now are late."""
        scheduler = self.workflow.scheduler
        if not self._held or self._entries:
            return False
        with scheduler._lock:
            waiting = scheduler._tofinish or scheduler._toerror or self.workflow.dag.ready_jobs
            return not waiting and len(scheduler.running) == len(self._held)

    def _forget(self, entries: list[Entry], *, complete: bool) -> None:
        """Snakemake forgets jobs, as if it had never handed them over. complete: there is no output of theirs but an
        earlier run's; else it stays marked as incomplete.
        """
        scheduler, persistence = self.workflow.scheduler, self.workflow.persistence
        with scheduler._lock:
            for entry in entries:
                # Its error_callback would remove a job's old output, and try it again if it may be tried again.
                job = entry.info.job
                scheduler.running.discard(job)
                scheduler.failed.add(job)
                scheduler._free_resources(job)
                for one in job.jobs if job.is_group() else [job]:
                    for path in one.output if complete else ():
                        persistence._unmark_incomplete(str(path))
        scheduler._open_jobs.release()

    def again(self, tasks: list[Task]) -> list[int]:
        """The pool has died: prepare its unfinished jobs once more; those of which that went well."""
        from snakemake.exceptions import print_exception

        with self._lock:
            entries = {task.id: self._entries[task.id] for task in tasks if task.id in self._entries}
        errors = self.workflow.async_run(self._prepare([entry.info.job for entry in entries.values() if entry.fast]))
        failed = dict(zip([number for number, entry in entries.items() if entry.fast], errors, strict=True))
        for number, error in failed.items():
            if error is not None:
                print_exception(error, self.workflow.linemaps)
                with self._lock:
                    del self._entries[number]
                self.report_job_error(entries[number].info)
        return [number for number in entries if failed.get(number) is None]

    def impossible(self, task: Task, why: str) -> None:
        """No node could ever run this task."""
        with self._lock:
            entry = self._entries.pop(task.id)
        self._failed += 1
        self.report_job_error(entry.info, msg=f"no node of the pool can run this job: {why}")

    def event(self, name: str, rank: int, when: float, details: dict[str, Any]) -> None:
        """Something for the trace."""
        if name == "staging":
            self.trace.phase(name, rank, **details)
        else:
            self.trace.instant(name, rank, when, **details)

    def running(self, running: int) -> None:
        """How many tasks run."""
        self._running = running

    def tick(self) -> None:
        """A moment has passed."""
        if self.workflow.scheduler._errors and not self._draining and not self.workflow.execution_settings.keep_going:
            self._drain()  # a local rule has failed
        if self._only_late_ones_are_left():
            self._end_early()
        if self._draining:
            self._let_go()
        self._count()
        if self.progress is not None:
            self.progress.tick()

    def _count(self) -> None:
        """How many jobs wait or run, are finished, or go on in another run."""
        waiting = len(self._entries)
        running = min(self._running, waiting)
        counts = {"queued": waiting - running, "running": running, "finished": self._done + self._failed}
        self.trace.counter(time.time(), **counts, later=self._later)
        if self.progress is not None:
            self.progress.update(self._done, running, waiting - running, self._failed, self._later)

    def broken(self, error: Exception) -> None:
        """The pool cannot go on."""
        self.workflow.scheduler.executor_error_callback(WorkflowError(f"worksteal: {error}"))

    def log(self, text: str, *, warning: bool = False) -> None:
        """A line in Snakemake's log."""
        (self.logger.warning if warning else self.logger.info)(text)

    def _count_wait(self, seconds: float) -> None:
        """Seconds between the hand-over of a job and its start."""
        self._begun += 1
        self._waits["mean"] += (seconds - self._waits["mean"]) / self._begun
        self._waits["max"] = max(self._waits["max"], seconds)

    def _learn(self, rule: str, seconds: float) -> None:
        known = self.durations.get(rule)
        self.durations[rule] = seconds if known is None else (1 - NEWEST) * known + NEWEST * seconds
        self.converter.durations[rule] = self.durations[rule]

    # The end

    def shutdown(self) -> None:
        """All is done, or no more is to be begun."""
        self._stop(kill=False)

    def cancel(self) -> None:
        """Ctrl-C or an error of Snakemake's own: end what runs."""
        self._stop(kill=True)

    def _stop(self, *, kill: bool) -> None:
        if self._pool is None or self._ended:
            return
        self._ended = True
        unfinished = self._unfinished + len(self._pool.stop(kill=kill))
        self._count()
        if self.progress is not None:
            self.progress.close()
        with suppress(OSError):
            (self.folder / FILE).unlink(missing_ok=True)
        remove_socket(self._pool.session.address)
        statistics = {"agents": self._pool.statistics, "wait_s": self._waits, "restarts": self._pool.deaths}
        summary = self.trace.close(self.folder / SUMMARY, statistics=statistics)
        write_durations(self.base / DURATIONS, self.durations)
        if self.settings.trace:
            self._draw(summary)
        if unfinished and (kill or self._draining):
            self.log(f"worksteal: {count(unfinished, 'job')} had not finished")
        if self._late:
            self.log(f"worksteal: {count(self._late, 'job')} did not fit into the rest of the allocation")
        if self._later:
            self.log(f"worksteal: {count(self._later, 'job')} will go on later, when the workflow is run again")

    def _draw(self, summary: dict[str, Any]) -> None:
        """The figure of a traced run, if matplotlib is here."""
        from .trace import read_trace

        try:
            from .figure import draw

            draw(summary, read_trace(self.folder / "trace.json"), self.folder / "utilisation.png")
        except ImportError:
            self.log("worksteal: no utilisation.png, since matplotlib is not installed")


def format_once(job: Any) -> None:
    """Have the command of a job formatted once until it ends, not for each of the five that ask: that would be a third
    of what Snakemake does for a small job.
    """
    format_anew(job)
    if job.is_group() or not job.is_shell:
        return
    known: dict[str, str] = {}
    format_wildcards = job.format_wildcards

    def formatted(text: str, **variables: Any) -> str:
        if variables or text is not job.rule.shellcmd:
            return str(format_wildcards(text, **variables))
        if text not in known:
            known[text] = str(format_wildcards(text))
        return known[text]

    job.format_wildcards = formatted


def format_anew(job: Any) -> None:
    """Forget what `format_once` has kept."""
    vars(job).pop("format_wildcards", None)


def describe_failure(result: Result) -> str:
    """One sentence."""
    return result.reason or f"the job ended with {status_of(result)}"


def status_of(result: Result) -> str:
    """Exit status or signal, for people."""
    if result.signal:
        with suppress(ValueError):
            return f"signal {result.signal} ({signal.Signals(result.signal).name})"
        return f"signal {result.signal}"
    return f"exit status {result.status}"


def wildcards_of(job: Any) -> str:
    """Wildcards of a job, for people."""
    return ", ".join(f"{name}={value}" for name, value in job.wildcards_dict.items())


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`, `no devices`."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def relative(path: Path) -> str:
    """A path as a user would type it."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def address_for(setting: str | None, launch: Launch) -> str:
    """Where Snakemake listens: a Unix socket in a folder of its own where the pool is on this machine, else TCP."""
    if setting and setting != "unix":
        return setting
    if setting == "unix" or launch.is_local:
        # Not in the run's folder: not every shared file system has sockets.
        return f"unix:{tempfile.mkdtemp(prefix=SOCKET_FOLDER)}/socket"
    return "tcp:0.0.0.0:0"


def read_durations(path: Path) -> dict[str, float]:
    """Seconds that rules took in earlier runs; empty where nothing is known."""
    try:
        return {str(rule): float(seconds) for rule, seconds in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write_durations(path: Path, durations: dict[str, float]) -> None:
    """Keep what rules took, atomically; a folder that cannot be written is no reason to fail."""
    with suppress(OSError):
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(durations, indent=1, sort_keys=True))
        temporary.rename(path)
