"""What runs inside a fork of the warm runner: a `script:` as a separate interpreter would run it, and `benchmark:`.

The fork comes first (`wait_for_order`), its order later over a pipe: forking a process that has torch loaded takes
11-20 ms, and is thus done before anybody waits for it.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import gc
import importlib
import io
import linecache
import logging
import marshal
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from . import processes, wire
from .afresh import Birth, state
from .forks import USAGE
from .tasks import Benchmark, Order, Script

# What modules import only when a process ends: found here, not by every fork anew (torch: 8 ms).
AT_EXIT = {"torch": "tabulate"}
ALWAYS = ("psutil", "snakemake.iocontainers", "snakemake.script", "snakemake.logging", "snakemake.benchmark")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
CATCHABLE = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
LONGEST_ARGUMENT = 120_000  # bytes; Linux refuses one argument of 128 KiB (MAX_ARG_STRLEN)
INTERRUPTED = -1  # the status of a script that a KeyboardInterrupt ended
HUGE_PAGE = 2 << 20  # bytes
_MADV_COLLAPSE = 25

# What the agent had here is kept alive: to let go of it would close descriptors, which have other owners by now.
_agents_main = sys.modules["__main__"]
_kept: list[Any] = []
_libc = ctypes.CDLL(None)
_thread_pools: Any = None  # threadpoolctl's list of the loaded libraries; None without threadpoolctl or numpy


# ---- in the warm runner, before it forks ----


def forget_the_agent() -> None:
    """Drop what the agent wanted done at its own exit, lest every fork do it; and its place among the import paths."""
    atexit._clear()
    registry = getattr(weakref.finalize, "_registry", {})
    registry.clear()  # an agent's TemporaryDirectory must not be removed by its forks
    if getattr(weakref.finalize, "_registered_with_atexit", False):
        atexit.register(weakref.finalize._exitfunc)  # type: ignore[attr-defined]
    if "multiprocessing.util" in sys.modules:
        atexit.register(sys.modules["multiprocessing.util"]._exit_function)
    atexit.register(logging.shutdown)
    logging.getLogger().handlers.clear()
    started_as = {"", os.getcwd(), os.path.dirname(os.path.realpath(sys.argv[0] if sys.argv else ""))}
    if not sys.flags.safe_path and sys.path and sys.path[0] in started_as:
        del sys.path[0]


def load(preload: Sequence[str]) -> list[str]:
    """Import what forks shall find imported; a sentence for each module of `preload` that cannot be."""
    global _thread_pools
    complaints = []
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    # Thread pools that libraries open on import would not survive a fork, and each fork sets its own size.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    for name in (*ALWAYS, *preload):
        try:
            importlib.import_module(name)
        except BaseException as error:
            what = "".join(traceback.format_exception_only(error)).strip()
            complaints.append(
                f"The warm process could not import {name} ({what}). Tasks that need it import it themselves; "
                "correct `preload` in the profile, or install the module."
            )
    if "numpy" in sys.modules:
        try:
            _thread_pools = importlib.import_module("threadpoolctl").ThreadpoolController()
        except ImportError:
            _thread_pools = None
    for name, late in AT_EXIT.items():
        if name in sys.modules:
            with suppress(ImportError):
                importlib.import_module(late)
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    for finalizer in getattr(weakref.finalize, "_registry", {}).values():
        finalizer.atexit = False  # what these modules have made is this process's to clean up, not each fork's
    sys.stdout.flush()  # else every fork would write it
    gc.collect()
    gc.freeze()  # a collection in a fork then leaves the shared pages alone
    _use_huge_pages()
    return complaints


def _use_huge_pages() -> None:
    """Put the heap into huge pages, where the kernel can (Linux 6.1): what a fork copies and frees is its page tables.

    With torch and pytorch_lightning loaded a fork then takes 2 ms instead of 9, and its end 4 instead of 11. A fork
    that writes to such a page gets a copy of 4 kB as ever.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, mode, *_, name = (*line.split(maxsplit=5), "")[:6]
        if mode == "rw-p" and name in ("", "[heap]"):
            start, end = (int(address, 16) for address in span.split("-"))
            start, end = -(-start // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
            if start < end:
                _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)


def compiled(path: str, source: str) -> bytes:
    """The script's code for `marshal`; empty if compiling it gives an error or a warning, which its fork must show."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return marshal.dumps(compile(source, path, "exec", dont_inherit=True))
    except (SyntaxError, ValueError, Warning, RecursionError, MemoryError):
        return b""


# ---- in the fork ----


def wait_for_order(channel: int, outputs: tuple[int, ...], parent: int, handled: Iterable[int]) -> NoReturn:
    """Be a task: settle in, hear the order from the channel (a socket), carry it out and exit. Never returns.

    Where the order says so, and nothing speaks against it, do not exit but tell the usage and wait for another order of
    the same script. outputs are the file descriptors for stdout and stderr, in turn, parent is the process id of the
    runner, handled are its signals with handlers.
    """
    os.setsid()
    processes.die_with_parent(parent)
    _default_signals(handled)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (outputs[0], 1), (outputs[0], 2)):
        os.dup2(source, target)
    tempfile.tempdir = None
    _reseed()
    open_streams()
    message = wire.hear(channel)
    if message is None:
        os._exit(0)  # the runner has ended, or needs no more spares
    order, changes, code, stays = message
    if stays:
        _stay(order, changes, code, Birth(channel, null, outputs, open_streams), channel)
    for descriptor in (channel, null, *outputs):
        os.close(descriptor)
    os.environ.update(changes)
    _mark()
    if "PYTHONUNBUFFERED" in changes:
        open_streams()
    if order.benchmark is not None:
        _leave(_guarded(lambda: _benchmarked(order, order.benchmark, code)))
    _set_threads(order.threads)
    _leave(_run_script(order.script, code))


def _stay(order: Order, changes: dict[str, str], code: bytes, birth: Birth, channel: int) -> NoReturn:
    """Run a script, then others with the same text and config, until one gives a reason to exit or the channel ends.

    What the script has written is in its files before the runner hears that it has ended.
    """
    script, stays, threads = order.script, True, 0
    assert script is not None
    gc.freeze()  # what there is by now need not be looked through after each script
    while True:
        birth.environment(changes)
        _mark()
        _set_threads(order.threads)
        if not stays:
            birth.close()
        birth.begin(order.threads != threads)
        threads = order.threads
        status = _run_script(script, code)
        if not stays or status or not _is_written(birth) or not birth.can_go_on():
            _leave(status)
        os.write(channel, USAGE.pack(*birth.usage()))
        birth.again()
        _reseed()
        message = wire.hear(channel)
        if message is None:
            _leave(0)
        order, changes, stays = message
        assert order.script is not None
        script = replace(script, snakemake=order.script.snakemake, search_paths=order.script.search_paths)


def _is_written(birth: Birth) -> bool:
    """Drop the script's globals and write out what is buffered; False if the process must end for that.

    So it must where something holds on to the globals: what the script wants done at exit, or its function in a module.
    """
    loader = sys.modules["__main__"].__dict__.get("__loader__") if "__main__" in sys.modules else None
    if os.getpid() != birth.pid or not isinstance(loader, SourceFileLoader):
        return False  # a fork of the script's own that came to its end, or a script that tinkers with its module
    held = weakref.ref(loader)
    sys.modules["__main__"] = _agents_main
    del loader
    try:
        gc.collect()
        if held() is not None:
            birth.signals = state()[1]
            birth.take_handlers_back()
            gc.collect()
        if held() is not None:
            return False
        _flush_files()
        for stream in _streams():
            if stream is not None and not stream.closed:
                stream.flush()
    except BaseException:
        return False
    _libc.fflush(None)
    return True


def _mark() -> None:
    processes.mark({name: os.environ[name] for name in (processes.RUNNER, processes.TASK)})


def _default_signals(handled: Iterable[int]) -> None:
    signal.set_wakeup_fd(-1)
    for number in handled:
        signal.signal(number, signal.SIG_DFL)
    # As the interpreter itself has it
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def open_streams() -> None:
    """Standard streams as the interpreter opens them for files, on descriptors 0, 1 and 2, whatever stood there."""
    _kept.extend((sys.stdin, sys.stdout, sys.stderr))
    direct = bool(os.environ.get("PYTHONUNBUFFERED"))

    def stream(number: int, errors: str, by_line: bool) -> io.TextIOWrapper[Any]:
        file = io.FileIO(number, "w", closefd=False)
        buffer = file if direct else io.BufferedWriter(file)
        return io.TextIOWrapper(buffer, errors=errors, line_buffering=by_line, write_through=direct)

    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = stream(1, "strict", False)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = stream(2, "backslashreplace", True)  # type: ignore[misc]
    if "snakemake.shell" in sys.modules:
        vars(sys.modules["snakemake.shell"])["STDOUT"] = sys.stdout  # as it is when a script imports it


def _reseed() -> None:
    """Fresh random states: a fork begins with those of the runner, so all its siblings would draw the same numbers."""
    # `random` does this itself in every fork.
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()


def _set_threads(threads: int) -> None:
    """Libraries that were loaded before the order came have read their environment variables already."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "numexpr" in sys.modules:
        sys.modules["numexpr"].set_num_threads(threads)
    # OpenBLAS opens its threads when it is told a number, be it the one that it has.
    if _thread_pools is not None and any(pool["num_threads"] != threads for pool in _thread_pools.info()):
        _thread_pools.limit(limits=threads)


def _run_script(script: Script, code: bytes, iteration: int | None = None) -> int:
    """Run it as `__main__` with what Snakemake's preamble defines; the exit status. iteration is the benchmark's."""
    source = script.source
    linecache.cache[script.path] = (len(source), None, source.splitlines(keepends=True), script.path)
    sys.argv = [script.path]
    main = ModuleType("__main__")
    main.__dict__.update(
        __builtins__=builtins,
        __annotations__={},
        __cached__=None,
        __file__=script.path,
        __loader__=SourceFileLoader("__main__", script.path),
        __real_file__=script.path,
    )
    sys.modules["__main__"] = main

    def run() -> int:
        _preamble(script, main.__dict__, iteration)
        program: CodeType = marshal.loads(code) if code else compile(source, script.path, "exec", dont_inherit=True)
        exec(program, main.__dict__)
        return 0

    return _guarded(run)


def _preamble(script: Script, names: dict[str, Any], iteration: int | None) -> None:
    """What snakemake.script.PythonScript puts before the source."""
    sys.path.extend(script.search_paths)
    container = pickle.loads(script.snakemake)
    if script.config:
        container.config = pickle.loads(script.config)
    if iteration is not None:
        container.bench_iteration = iteration
    logger = importlib.import_module("snakemake.logging").logger
    kind = importlib.import_module("snakemake.iocontainers").Snakemake
    names.update(sys=sys, pickle=pickle, snakemake=container, logger=logger, Snakemake=kind)
    if script.shell_exec is not None:
        names["shell"] = importlib.import_module("snakemake.shell").shell
        names["shell"].executable(script.shell_exec)


def _guarded(work: Callable[[], int]) -> int:
    """The exit status that an interpreter would give, and its words on stderr."""
    try:
        return work()
    except SystemExit as stop:
        return _status_of(stop.code)
    except KeyboardInterrupt as error:
        _show(error)
        return INTERRUPTED
    except BaseException as error:
        _show(error)
        return 1


def _status_of(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _show(error: BaseException) -> None:
    """Print the traceback without this module's frames, through the script's own hook if it has set one."""
    trace: TracebackType | None = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if sys.excepthook is sys.__excepthook__:
        traceback.print_exception(type(error), error, trace)
    else:
        sys.excepthook(type(error), error, trace)


def _leave(status: int) -> NoReturn:
    """End as an interpreter ends, but for tearing down the libraries, and exit."""
    for step in (threading._shutdown, atexit._run_exitfuncs, _let_go):  # type: ignore[attr-defined]
        try:
            step()
        except BaseException as error:
            _show(error)
    for stream in _streams():
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            status = status or 120  # the interpreter's own status for this
    _libc.fflush(None)  # what C and Fortran libraries have printed
    if status == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


def _streams() -> tuple[Any, ...]:
    """The streams for output, the script's and the process's own."""
    return sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__


def _let_go() -> None:
    """Clear the script's globals, private names first, as the interpreter does: files left open are written out."""
    names = sys.modules["__main__"].__dict__
    if sys.modules["__main__"] is not _agents_main:
        for private in (True, False):
            for name in [name for name in names if name != "__builtins__" and name.startswith("_") == private]:
                names[name] = None
    gc.collect()
    _flush_files()


def _flush_files() -> None:
    """Open files that live on in other modules."""
    for thing in gc.get_objects():
        # type(), for a proxy's isinstance would run its code
        if issubclass(type(thing), (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)) and not thing.closed:
            thing.flush()


# ---- benchmark ----


def _benchmarked(order: Order, benchmark: Benchmark, code: bytes) -> int:
    """Run the task `repeats` times under Snakemake's measurement and write its file; the first status that is not 0."""
    tools = importlib.import_module("snakemake.benchmark")
    records = []
    for iteration in range(benchmark.repeats):
        record = tools.BenchmarkRecord()
        if order.script is not None:
            status = _measure_script(tools, record, order, code, iteration)
        else:
            status = _measure_command(tools, record, order)
        if status:
            return status
        records.append(record)
    for name, value in (pickle.loads(benchmark.job) if benchmark.job else {}).items():
        for record in records:
            setattr(record, name, value)
    tools.write_benchmark_records(records, benchmark.path, benchmark.extended)
    return 0


def _measure_script(tools: Any, record: Any, order: Order, code: bytes, iteration: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        processes.die_with_parent(parent)
        _reseed()
        _set_threads(order.threads)
        assert order.script is not None
        _leave(_run_script(order.script, code, iteration))
    with _deaf(), tools.benchmarked(pid, record):
        status = os.waitpid(pid, 0)[1]
    return _shell_status(os.waitstatus_to_exitcode(status))


def _measure_command(tools: Any, record: Any, order: Order) -> int:
    words, file = shell_words(order, tempfile.gettempdir())
    try:
        with subprocess.Popen(words) as process, _deaf(), tools.benchmarked(process.pid, record):
            return _shell_status(process.wait())
    finally:
        if file:
            os.unlink(file)


@contextmanager
def _deaf() -> Iterator[None]:
    """SIGTERM goes to all processes of a task: what is measured answers it, and this one only waits."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shell_status(code: int) -> int:
    """As a shell puts it: 128 and the signal's number for a signal."""
    return code if code >= 0 else 128 - code


def shell_words(order: Order, folder: str) -> tuple[list[str], str]:
    """Words of the command line for the order's command, and the file in `folder` to remove afterwards ("" if none).

    A command too long for one argument becomes a file.
    """
    text = order.command.encode()
    if len(text) <= LONGEST_ARGUMENT:
        return [order.shell, "-c", order.command], ""
    descriptor, name = tempfile.mkstemp(prefix="worksteal-", suffix=".sh", dir=folder)
    os.close(descriptor)
    Path(name).write_bytes(text)
    return [order.shell, name], name
