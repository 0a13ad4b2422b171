"""Unpacks the archives that are staged: an environment as one file, which a shared file system reads fast."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import IO, Any, cast

from .listing import StagingError


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive (zstd, gzip, xz, bzip2 or none) into a new folder.

    It is done here and not by `tar`, since an agent, which has MPI in it, is not to start processes. Names that lead
    out of the folder are refused; links may point anywhere, as those of environments do.

    Raises:
        StagingError: it is damaged, or zstd is needed and the package zstandard is missing.
        OSError: it cannot be written.
    """
    folder.mkdir()
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=_plain(archive.name, file), mode="r|*") as members:
            members.extractall(folder, filter=_keep)
            # tarfile takes a clean cut for the end; at a whole one's there is a second empty block.
            if len(members.fileobj.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                raise StagingError(f"{archive.name} cannot be unpacked: it is cut off")
    except (tarfile.TarError, EOFError, *_zstd_errors()) as error:
        raise StagingError(f"{archive.name} cannot be unpacked: {error}") from error


def _keep(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    kept = tarfile.tar_filter(member, folder)
    # Else a folder that its archive made read-only could not be filled.
    return kept.replace(mode=(kept.mode or 0) | 0o700) if kept.isdir() else kept


def _plain(name: str, file: IO[bytes]) -> IO[bytes]:
    """The archive without zstd around it; the others are known to tarfile."""
    if not name.endswith(("zst", "zstd")):
        return file
    try:
        import zstandard
    except ImportError:
        raise StagingError(
            f"{name} needs the package zstandard: pip install 'snakemake-executor-plugin-worksteal[staging]'"
        ) from None
    return cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))


def _zstd_errors() -> tuple[Any, ...]:
    try:
        import zstandard
    except ImportError:
        return ()
    return (zstandard.ZstdError,)
