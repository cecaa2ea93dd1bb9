"""Packed models: real archives, whole, damaged and malicious."""

import gzip
import io
import itertools
import lzma
import pathlib
import tarfile

import pytest

from toolkit.serving import model_archive
from toolkit.system.console import InputError


def pack(folder: pathlib.Path, *members: tarfile.TarInfo) -> pathlib.Path:
    """Write an archive of a run and these members into the folder; the folder."""
    with tarfile.open(folder / model_archive.PACKED, "w:gz") as packed:
        for member in (odd("resnet18", tarfile.DIRTYPE), odd("resnet18/model.safetensors", size=20_000), *members):
            packed.addfile(member, io.BytesIO(bytes(member.size)))
    return folder


def odd(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode = kind, link, size, 0o755
    return member


def test_its_content_is_there_until_the_block_ends(tmp_path):
    with model_archive.unpacked(pack(tmp_path)) as folder:
        assert (folder / "resnet18" / "model.safetensors").stat().st_size == 20_000
    assert not folder.exists() and [path.name for path in tmp_path.iterdir()] == [model_archive.PACKED]


def test_a_folder_that_also_has_runs_is_used_as_it_is(tmp_path):
    pack(tmp_path)
    (tmp_path / "resnet18").mkdir()
    (tmp_path / "resnet18" / "model.safetensors").touch()
    with model_archive.unpacked(tmp_path) as folder:
        assert folder == tmp_path


@pytest.mark.parametrize(
    "member",
    [
        odd("/etc/own"), odd("../up"), odd("a/../../up"), odd("link", tarfile.SYMTYPE, "/etc"),
        odd("hard", tarfile.LNKTYPE, "resnet18/model.safetensors"), odd("fifo", tarfile.FIFOTYPE),
    ],
    ids=lambda member: member.name,
)  # fmt: skip
def test_a_member_that_leads_out_of_the_folder_is_refused(tmp_path, member):
    with pytest.raises(InputError, match=f"found links or paths that lead out of it: {member.name}"):
        model_archive.unpacked(pack(tmp_path, member)).__enter__()


def test_an_archive_larger_than_the_free_disk_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"expected room for 1,073,741,824.0 MiB or more .* found 1.0 MiB free; set TMPDIR"
    ):
        model_archive.refuse_unsafe_members(tmp_path, [odd("huge", size=2**50)], free=2**20)


def test_an_archive_of_very_many_files_is_read_no_further_than_the_limit(tmp_path):
    members = (odd(f"{number}") for number in itertools.count())
    with pytest.raises(InputError, match="expected at most 5,000 files and folders in it, found more"):
        model_archive.refuse_unsafe_members(tmp_path, members, free=2**20)


@pytest.mark.parametrize("damage", ["half", "start", "empty", "foreign", "zeros", "xz", "a size beyond its end"])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    file = pack(tmp_path) / model_archive.PACKED
    whole = file.read_bytes()
    contents = {"half": whole[: len(whole) // 2], "start": whole[:15], "empty": b"", "foreign": b"x" * 99}
    contents["zeros"] = whole[:30] + bytes(20) + whole[50:]
    contents["xz"] = lzma.compress(gzip.decompress(whole))[:-50]
    contents["a size beyond its end"] = gzip.compress(odd("huge", size=2**20).tobuf() + bytes(1024))
    file.write_bytes(contents[damage])
    with pytest.raises(InputError, match="model.tar.gz: expected a packed model, found a damaged file"):
        model_archive.unpacked(tmp_path).__enter__()
