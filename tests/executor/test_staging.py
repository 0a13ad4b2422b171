"""Staging: every node has the whole of it or none, each byte is read once, and nothing is left behind.

Several nodes are ranks of one MPI launch with a folder each.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from conftest import wait_for
from reads import bytes_read, mpiexec
from snakemake_executor_plugin_worksteal.archive import unpack
from snakemake_executor_plugin_worksteal.listing import StagingError, list_source
from snakemake_executor_plugin_worksteal.peers import CHUNK, Solo
from snakemake_executor_plugin_worksteal.staging import stage
from snakemake_executor_plugin_worksteal.store import PARTIAL, RECORD, Store, sha256

COMMAND = [sys.executable, "-m", "snakemake_executor_plugin_worksteal.cli", "stage"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder as it may lie on a shared file system."""
    folder = tmp_path / "shared" / "data"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "large.npy").write_bytes(os.urandom(1 << 20) * 3 + b"end")
    (folder / "sub" / "small é.txt").write_text("small")
    (folder / "nothing").touch()
    (folder / "link").symlink_to("sub/small é.txt")
    (folder / "run.sh").write_text("#!/bin/sh\necho run\n")
    (folder / "run.sh").chmod(0o750)
    return folder


def run(ranks: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command on so many ranks."""
    return subprocess.run([*mpiexec(ranks), *COMMAND, *arguments], capture_output=True, text=True, timeout=100)


def contents(folder: Path) -> dict[str, bytes | None]:
    """All names under a folder, with the content of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def copies(node: Path) -> list[Path]:
    """All folders in a node's store."""
    return sorted((node / ".worksteal").iterdir())


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here: apt-get install strace")
def test_every_node_gets_all_of_it_and_each_byte_is_read_once(source: Path, tmp_path: Path) -> None:
    (source / "large.npy").write_bytes(os.urandom(1 << 20) * 65 + b"end")
    files = [path for path in source.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    assert size > 2 * CHUNK
    command = [*mpiexec(4), *COMMAND, source, f"{tmp_path}/node{{rank}}"]
    assert bytes_read(command, files) == size
    for rank in range(4):
        copy = tmp_path / f"node{rank}" / "data"
        assert contents(copy) == contents(source)
        assert subprocess.check_output([copy / "run.sh"], text=True) == "run\n"
        assert not (copy / "nothing").stat().st_mode & 0o222
    # It is there: nothing is read, and nothing is left but the one copy.
    assert bytes_read(command, files) == 0
    # A fifth node comes to them: read once more in all.
    command[2] = "5"
    assert bytes_read(command, files) == size
    assert [len(copies(tmp_path / f"node{rank}")) for rank in range(5)] == [1] * 5


def test_the_same_without_mpi_and_a_changed_source(source: Path, tmp_path: Path) -> None:
    node = tmp_path / "node"
    for text in ("one", "two", "two"):
        (source / "nothing").write_text(text)
        subprocess.run([*COMMAND, source, source / "run.sh", node], check=True)
        assert contents(node / "data") == contents(source)
        assert sha256(node / "run.sh") == sha256(source / "run.sh")
        assert len(copies(node)) == 2


def test_a_damaged_copy_is_made_anew(source: Path, tmp_path: Path) -> None:
    assert run(3, source, f"{tmp_path}/node{{rank}}").returncode == 0
    damaged, times = (tmp_path / "node1" / "data" / "large.npy"), (source / "large.npy").stat()
    damaged.chmod(0o600)
    with damaged.open("r+b") as file:
        file.seek(1000)
        file.write(b"x" * 10)
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    others = [copies(tmp_path / f"node{rank}")[0].stat().st_ino for rank in (0, 2)]
    assert "new on 1" in run(3, source, f"{tmp_path}/node{{rank}}").stdout
    assert contents(tmp_path / "node1" / "data") == contents(source)
    assert [copies(tmp_path / f"node{rank}")[0].stat().st_ino for rank in (0, 2)] == others


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Where node 1 has a disk of its own; `mount` it with options."""
    if os.getuid():
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "node1"
    folder.mkdir()
    yield folder
    subprocess.run(["umount", folder], check=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("size=10m", "node1/.worksteal has 10 MB free, 3 MB are to be staged"),
        ("nr_inodes=7", "No space left on device"),
    ],
)
def test_a_full_disk_is_said_and_the_others_have_it(
    source: Path, small_disk: Path, tmp_path: Path, options: str, sentence: str
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", small_disk], check=True)
    ended = run(3, source, f"{tmp_path}/node{{rank}}")
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert "on 2 of 3 nodes" in ended.stdout
    assert contents(tmp_path / "node2" / "data") == contents(source)
    assert [path.name for path in small_disk.rglob("*")] == [".worksteal"]


def test_a_killed_rank_leaves_nothing_that_stays(source: Path, tmp_path: Path) -> None:
    nodes = [tmp_path / f"node{rank}" for rank in range(3)]
    with (source / "large.npy").open("r+b") as file:
        file.truncate(400 << 20)
    with subprocess.Popen([*mpiexec(3), *COMMAND, source, f"{tmp_path}/node{{rank}}"]) as launched:
        wait_for(lambda: any(path.stat().st_size for path in nodes[2].glob(f".worksteal/{PARTIAL}*/data/large.npy")))
        (victim,) = [int(path.parts[2]) for path in Path("/proc").glob("[0-9]*/fd/*") if _is_under(path, nodes[2])][:1]
        os.kill(victim, signal.SIGKILL)
        assert launched.wait(60) != 0
    assert not (nodes[2] / "data").exists()
    assert [path.name.startswith(PARTIAL) for path in copies(nodes[2])] == [True]
    (source / "large.npy").write_text("small now")
    assert run(3, source, f"{tmp_path}/node{{rank}}").returncode == 0
    for node in nodes:
        assert contents(node / "data") == contents(source)
        assert [path.name.startswith(PARTIAL) for path in copies(node)] == [False]


def _is_under(descriptor: Path, folder: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith(str(folder))
    except OSError:
        return False


def archive(path: Path, names: dict[str, str]) -> Path:
    """A tar.zst with files, a link and a folder that cannot be written."""
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as packed,
        tarfile.open(fileobj=packed, mode="w|") as members,
    ):
        locked = tarfile.TarInfo("env/locked")
        locked.type, locked.mode = tarfile.DIRTYPE, 0o555
        members.addfile(locked)
        link = tarfile.TarInfo("env/python")
        link.type, link.linkname = tarfile.SYMTYPE, sys.executable
        members.addfile(link)
        for name, text in names.items():
            own = path.with_name("member")
            own.write_text(text)
            members.add(own, name)
    return path


def test_a_launcher_of_another_mpi_is_noticed(source: Path, tmp_path: Path) -> None:
    """Each process would be alone in its world, and read all by itself."""
    done = subprocess.run(
        [*COMMAND, source, tmp_path / "node"],
        env={**os.environ, "OMPI_COMM_WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "one of 2 processes of a launcher is alone in its MPI world: mpi4py uses another MPI" in done.stderr
    assert not (tmp_path / "node").exists()


def test_an_archive_is_unpacked_on_each_node(tmp_path: Path) -> None:
    software = archive(tmp_path / "env.tar.zst", {"env/locked/a.txt": "a" * 100_000, "env/bin/b": "b"})
    for new in (2, 0):
        assert f"new on {new}" in run(2, "--unpack", software, f"{tmp_path}/node{{rank}}").stdout
        for rank in range(2):
            found = tmp_path / f"node{rank}" / "env" / "env"
            assert (found / "locked" / "a.txt").read_text() == "a" * 100_000
            assert subprocess.check_output([found / "python", "-c", "print(1)"], text=True) == "1\n"
    (tmp_path / "node1" / "env" / "env" / "bin" / "b").write_text("touched")
    assert "new on 1" in run(2, "--unpack", software, f"{tmp_path}/node{{rank}}").stdout
    assert (tmp_path / "node1" / "env" / "env" / "bin" / "b").read_text() == "b"


def test_an_archive_that_ends_between_two_of_its_files_is_cut_off(tmp_path: Path) -> None:
    """tarfile takes that for its end."""
    (tmp_path / "a").write_text("a" * 700)
    with tarfile.open(tmp_path / "whole.tar", "w", format=tarfile.USTAR_FORMAT) as members:
        for name in ("one", "two"):
            members.add(tmp_path / "a", name)
    cut = tmp_path / "cut.tar"
    cut.write_bytes((tmp_path / "whole.tar").read_bytes()[: 3 * 512])  # a header and the two blocks of the first
    with tarfile.open(cut, "r|") as members:
        assert members.getnames() == ["one"]
    unpack(tmp_path / "whole.tar", tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["one", "two"]
    with pytest.raises(StagingError, match=r"cut\.tar cannot be unpacked: it is cut off"):
        unpack(cut, tmp_path / "cut")


def test_what_is_compiled_by_use_does_not_damage_a_copy(tmp_path: Path) -> None:
    software = archive(tmp_path / "env.tar.zst", {"env/module.py": "value = 1\n"})
    listing = list_source(str(software), unpack=True)
    store = Store(tmp_path / "store")
    place = Path(stage(listing, Solo(), store).local)
    subprocess.run([sys.executable, "-c", "import module"], cwd=place / "env", check=True,
                   env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""})  # fmt: skip
    assert list((place / "env" / "__pycache__").iterdir())
    assert store.find(listing) == place
    (place / "env" / "module.py").write_text("value = 20\n")
    assert store.find(listing) is None


def test_two_links_to_one_folder_are_no_circle(tmp_path: Path) -> None:
    """As lib64 and lib of a virtual environment."""
    (tmp_path / "env" / "lib").mkdir(parents=True)
    (tmp_path / "env" / "lib" / "a").write_text("a")
    (tmp_path / "env" / "lib64").symlink_to("lib")
    assert {file.name for file in list_source(str(tmp_path / "env")).files} == {"lib/a", "lib64/a"}
    (tmp_path / "env" / "lib" / "up").symlink_to("..")
    with pytest.raises(StagingError, match="its links lead round to"):
        list_source(str(tmp_path / "env"))


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"keys": [], "name": "x"}'])
def test_a_record_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    listing = list_source(str(tmp_path / "file"))
    first = Store(tmp_path / "store")
    place = Path(stage(listing, Solo(), first).local)
    first.release(remove=False)
    (place.parent / RECORD).write_text(text)
    again = stage(listing, Solo(), Store(tmp_path / "store"))
    assert not again.problem
    assert Path(again.local).read_text() == "content"


def test_archives_that_cannot_be_unpacked(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    outside = archive(tmp_path / "outside.tar.zst", {"../elsewhere": "x"})
    cut = tmp_path / "cut.tar.zst"
    cut.write_bytes(archive(tmp_path / "whole.tar.zst", {"a": os.urandom(50_000).hex()}).read_bytes()[:30_000])
    text = tmp_path / "text.tar.zst"
    text.write_text("no archive")
    for path in (outside, cut, text):
        outcome = stage(list_source(str(path), unpack=True), Solo(), store)
        assert f"{path.name} cannot be unpacked" in outcome.problem
        assert not outcome.local
    assert not list(store.folder.iterdir())
    with pytest.raises(StagingError, match="which needs a file that ends in"):
        list_source(str(tmp_path), unpack=True)


def test_a_copy_stays_while_anybody_uses_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    listing = list_source(str(tmp_path / "file"))
    program = (
        "import sys; from pathlib import Path\n"
        "from snakemake_executor_plugin_worksteal.listing import list_source\n"
        "from snakemake_executor_plugin_worksteal.store import Store\n"
        "print(Store(Path(sys.argv[1])).find(list_source(sys.argv[2])), flush=True); input()\n"
    )
    store = Store(tmp_path / "store")
    local = Path(stage(listing, Solo(), store).local)
    words = [sys.executable, "-c", program, store.folder, tmp_path / "file"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == f"{local}\n"
        store.release(remove=True)
        assert local.read_text() == "content"
        other.kill()
    again = Store(store.folder)
    assert again.find(listing) == local
    again.release(remove=True)
    assert not store.folder.exists()


def test_a_disk_that_does_not_keep_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    listing = list_source(str(tmp_path / "file"))
    store = Store(tmp_path / "store")
    copy = store.copy(listing)
    copy.begin(listing.files[0])
    copy.write(memoryview(b"content"))
    copy.end(listing.files[0])
    (written,) = store.folder.glob(f"{PARTIAL}*/file")
    written.chmod(0o600)
    written.write_text("Content")
    with pytest.raises(StagingError, match="is not what was read for it"):
        copy.finish({"file": sha256(tmp_path / "file")})
    copy.discard()
    assert not list(store.folder.iterdir())


def test_a_source_that_is_cut_short_while_it_is_read_is_noticed_by_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))
    program = (
        "import os, sys; from pathlib import Path; from mpi4py import MPI\n"
        "from snakemake_executor_plugin_worksteal import listing, peers, staging, store\n"
        "all = peers.Collective(MPI.COMM_WORLD); folder = Path(sys.argv[1])\n"
        "found = all.share(listing.list_source(str(folder / 'file')) if all.rank == 0 else None)\n"
        "if all.rank == 0: os.truncate(folder / 'file', 50_000)\n"
        "all.gather(0)\n"
        "print(staging.stage(found, all, store.Store(folder / str(all.rank))).problem)\n"
    )
    said = subprocess.check_output([*mpiexec(3), sys.executable, "-c", program, tmp_path], text=True, timeout=60)
    # The ranks' lines may run into one another.
    assert said.replace("\n", "") == f"{tmp_path / 'file'} has become shorter while it was read" * 3
    assert not list(tmp_path.glob("*/*"))


def test_what_cannot_be_staged_is_one_sentence(tmp_path: Path) -> None:
    ended = run(2, tmp_path / "missing", f"{tmp_path}/node{{rank}}")
    assert (ended.returncode, ended.stderr) == (
        1,
        f"worksteal: {tmp_path / 'missing'} cannot be staged: No such file or directory\n",
    )
    (tmp_path / "round").mkdir()
    (tmp_path / "round" / "again").symlink_to(tmp_path / "round")
    with pytest.raises(StagingError, match="lead round"):
        list_source(str(tmp_path / "round"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StagingError, match="neither a file nor a folder"):
        list_source(str(tmp_path / "pipe"))
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(StagingError, match="only you can write"):
        Store(open_to_all)
