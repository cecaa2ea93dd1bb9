"""Stores of decoded photographs: where they lie, what they wait for, and what is kept of them between runs."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
import zygote
from conftest import ROOT, decode_file, repaint
from PIL import Image

from toolkit.data import decode, disk_cache, store
from toolkit.data.disk_cache import CachedStore
from toolkit.data.framing import Framing
from toolkit.data.store import CHUNK, DecodingThreads, Store
from toolkit.system import files
from toolkit.system.console import InputError

FRAMING = Framing((24, 18))


@pytest.fixture
def paths(tmp_path) -> list[str]:
    """More photographs than a chunk holds, each of its own colour."""
    (tmp_path / "photographs").mkdir()
    written = []
    for number in range(2 * CHUNK + 5):
        path = tmp_path / "photographs" / f"{number:03}.png"
        Image.new("RGB", (36, 48), (number, 255 - number, 7)).save(path)
        written.append(str(path))
    return written


def colours(some: Store) -> list[int]:
    """The red of every photograph, which is its number."""
    return some.gather(torch.arange(len(some)))[:, 5, 5, 0].tolist()


def test_memory_file_and_decoding_at_each_use_give_the_same_pixels(paths, monkeypatch):
    index = torch.tensor([3, 0, 130, 3])
    stores = [Store(paths, FRAMING), Store(paths, FRAMING, memory_gib=0), Store(paths, FRAMING, memory_gib=0)]
    assert [some.fill() for some in stores[:2]] == [{}, {}]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    assert stores[2].fill() == {}
    for some, place in zip(stores, ("in memory", "in a file", "at each use"), strict=True):
        assert place in str(some)
        assert colours(some) == list(range(len(paths)))
        assert torch.equal(some.gather(index), stores[0].gather(index))
        assert some.checksums.tolist() == [zlib.crc32(pathlib.Path(path).read_bytes()) for path in paths]


def test_threads_are_as_many_as_do_not_wait_for_each_other(monkeypatch):
    """16 threads on small photographs waited for Python's lock: a third of the speed of two threads on 2 cores."""
    monkeypatch.setattr(store, "cpu_count", lambda: 16)
    milliseconds = [(), (0.1,), (0.2, 0.6, 40.0), (1.6,), (60.0,)]
    assert [store.useful_threads([1e-3 * one for one in each]) for each in milliseconds] == [2, 2, 3, 8, 16]


# Below, photographs are timed: on a machine that stalls, small ones may take ten times as long, still far from large.


def test_small_photographs_take_few_threads_and_large_ones_all(paths, tmp_path, monkeypatch):
    assert Store(paths, FRAMING).fill() == {}  # the first photographs of a process take longer
    monkeypatch.setattr(store, "cpu_count", lambda: 64)
    Image.effect_noise((4000, 3000), 50).save(tmp_path / "large.jpg")
    few, all_of_them = Store(paths, FRAMING), Store([str(tmp_path / "large.jpg")], FRAMING)
    assert few.fill() == all_of_them.fill() == {}
    assert 2 <= few.threads < 32
    assert all_of_them.threads == 64


def test_photographs_that_come_one_by_one_take_few_threads_while_small_and_more_while_large(paths, opened_at_once):
    small, large = [pathlib.Path(path).read_bytes() for path in paths], io.BytesIO()
    Image.effect_noise((3000, 2000), 50).save(large, "JPEG")
    for content in small[:9]:
        decode.decode_bytes(content, FRAMING)  # the first photographs of a process take longer
    with DecodingThreads() as threads:
        found = threads.map(lambda content: decode.decode_bytes(content, FRAMING)[0, 0, 0], small)
        assert list(found) == list(range(len(paths)))
        few = max(opened_at_once)
        list(threads.map(lambda content: decode.decode_bytes(content, FRAMING), [large.getvalue()] * 40))
        assert few < 24 < max(opened_at_once)


def test_what_is_not_decoded_yet_is_waited_for(paths, monkeypatch):
    """Photographs are decoded in the background; reading pixels waits until these are decoded."""
    monkeypatch.setattr(store, "cpu_count", lambda: 1)
    slow = decode.decode_bytes
    monkeypatch.setattr(decode, "decode_bytes", lambda *given: (store.threading.Event().wait(0.002), slow(*given))[1])
    with Store(paths, FRAMING) as some:
        assert some.gather(torch.tensor([1]))[0, 0, 0, 0] == 1
        assert some._filler.is_alive()  # and the rest is not waited for
        assert colours(some) == list(range(len(paths)))
        assert some.wait() == {}


def test_a_store_that_is_left_early_stops_within_a_photograph(paths, monkeypatch):
    some, too_late = Store(paths, FRAMING), []

    def slow(*_):
        too_late.append(some._stopped)
        return store.threading.Event().wait(0.05)

    monkeypatch.setattr(decode, "decode_bytes", slow)
    with pytest.raises(ZeroDivisionError), some:
        raise ZeroDivisionError
    assert not some._filler.is_alive() and some.bad == {}
    assert sum(too_late) <= some.threads and len(too_late) < len(paths)


def full(self, offset, content):
    """A disk that has taken the first chunk and takes no more."""
    if offset:
        raise OSError(28, "No space left on device")


def test_a_disk_that_gets_full_is_said_and_photographs_are_decoded_at_each_use(paths, capsys, monkeypatch):
    some = Store(paths, FRAMING, memory_gib=0)
    monkeypatch.setattr(store.File, "write", full)
    assert some.fill() == {} and colours(some) == list(range(len(paths)))
    assert "No space left on device; photographs are decoded at each use" in capsys.readouterr().out


def kept(paths, folder: pathlib.Path, **given) -> CachedStore:
    folder.mkdir(exist_ok=True)
    some = disk_cache.open_store(paths, given.pop("framing", FRAMING), given.pop("memory_gib", 1.0), folder)
    assert some.fill() == {}
    return some


@pytest.mark.parametrize("memory_gib", [1.0, 0.0])
def test_a_later_run_takes_what_is_kept(paths, tmp_path, memory_gib, monkeypatch):
    first = kept(paths, tmp_path / "cache", memory_gib=memory_gib)
    assert not first.reused and "decoded" in str(first)
    monkeypatch.setattr(decode, "decode_bytes", None)  # nothing is decoded again
    for second in (kept(paths, tmp_path / "cache", memory_gib=memory_gib), kept(paths, tmp_path / "cache")):
        assert second.reused and "found" in str(second)
        assert second.checksums.all() and second.checksums.tolist() == first.checksums.tolist()
        assert colours(second) == colours(first) == list(range(len(paths)))


def test_the_pixels_of_a_kept_store_are_no_way_to_change_its_file(paths, tmp_path):
    kept(paths, tmp_path / "cache")
    kept(paths, tmp_path / "cache").storage.pixels.zero_()
    assert colours(kept(paths, tmp_path / "cache")) == list(range(len(paths)))


def test_a_changed_photograph_is_never_served_stale(paths, tmp_path):
    kept(paths, tmp_path / "cache")
    repaint(paths[70])
    changed = kept(paths, tmp_path / "cache")
    assert not changed.reused and colours(changed)[70] == 200
    assert kept(paths, tmp_path / "cache").reused


def test_another_size_other_photographs_and_another_decoder_are_other_stores(paths, tmp_path, monkeypatch):
    kept(paths, tmp_path / "cache")
    assert not kept(paths, tmp_path / "cache", framing=Framing((18, 24))).reused
    assert colours(kept(paths[:70], tmp_path / "cache")) == list(range(70))
    assert colours(kept(paths[::-1], tmp_path / "cache")) == list(range(len(paths)))[::-1]
    assert kept(paths, tmp_path / "cache").reused
    edited = tmp_path / "decode.py"  # by hand, as people do
    edited.write_text(pathlib.Path(decode.__file__).read_text() + "\n")
    monkeypatch.setattr(decode, "__file__", str(edited))
    assert not kept(paths, tmp_path / "cache").reused


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "one bit", "half a note", "longer", "older", "fewer"])
def test_a_broken_store_is_made_anew(paths, tmp_path, damage):
    whole = kept(paths, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*/pixels")
    content = file.read_bytes()
    pixels, note = content[: whole.bytes], json.loads(content[whole.bytes :])
    broken = {
        "cut": content[: whole.bytes // 2],
        "empty": b"",
        "foreign": b"not a store" * 1000,
        "one bit": content[:1000] + bytes([content[1000] ^ 4]) + content[1001:],
        "half a note": content[:-20],
        "longer": content + b"{}",
        "older": pixels + json.dumps({name: note[name] for name in note if name != "files"}).encode(),
        "fewer": pixels + json.dumps(note | {"files": note["files"][1:]}).encode(),
    }[damage]
    file.write_bytes(broken)
    mended = kept(paths, tmp_path / "cache")
    assert not mended.reused and colours(mended) == list(range(len(paths)))
    assert kept(paths, tmp_path / "cache").reused


def test_what_a_killed_run_left_is_swept(paths, tmp_path):
    kept(paths, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*/pixels")
    file.unlink()
    (file.parent / "pixels.123.part").write_bytes(b"half")
    kept(paths, tmp_path / "cache")
    assert [path.name for path in file.parent.iterdir()] == ["pixels"]


def test_nothing_is_kept_of_bad_photographs(paths, tmp_path):
    pathlib.Path(paths[3]).write_bytes(b"no photograph")
    (tmp_path / "cache").mkdir()
    for _ in range(2):
        some = disk_cache.open_store(paths, FRAMING, 1.0, tmp_path / "cache")
        assert list(some.fill()) == [3] and not some.reused
        assert colours(some)[:5] == [0, 1, 2, 0, 4]
    assert list((tmp_path / "cache").glob("*/*")) == []


def test_what_was_decoded_for_a_place_that_is_given_up_is_not_taken_from_the_next_one(paths, tmp_path, monkeypatch):
    """If the cache's disk gets full, readers wait until the pixels are decoded again."""
    monkeypatch.setattr(store.File, "write", full)
    (tmp_path / "cache").mkdir()
    with disk_cache.open_store(paths, FRAMING, 1.0, tmp_path / "cache") as some:
        assert colours(some) == list(range(len(paths)))
        assert some.wait() == {}


def test_bad_photographs_are_0_where_they_are_decoded_at_each_use_too(paths, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    pathlib.Path(paths[3]).write_bytes(b"no photograph")
    os.unlink(paths[4])
    some = Store(paths, FRAMING, memory_gib=0)
    assert list(some.fill()) == [3, 4]
    assert colours(some)[:6] == [0, 1, 2, 0, 0, 5]


def test_what_ended_the_decoding_is_raised_to_who_asks_for_pixels(paths, monkeypatch):
    monkeypatch.setattr(store, "Memory", lambda pixels: 1 / 0)
    some = Store(paths, FRAMING)
    for ask in (some.fill, lambda: some.gather(torch.tensor([0]))):
        with pytest.raises(ZeroDivisionError):
            ask()


def test_more_memory_than_there_is_says_which_setting_to_lower(paths):
    with pytest.raises(InputError, match=r"CACHE_GIB: expected \d+\.\d GiB of memory"):
        Store(paths, Framing((2**20, 2**20)), memory_gib=2**40).fill()


def test_who_waits_for_another_run_says_so_and_can_be_stopped(paths, tmp_path, capsys):
    kept(paths, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    with files.locked(folder) as alone:
        assert alone
        with pytest.raises(ZeroDivisionError), disk_cache.open_store(paths, FRAMING, 1.0, tmp_path / "cache") as some:
            some._filler.join(timeout=0.3)
            raise ZeroDivisionError
    assert not some._filler.is_alive()
    assert f"waiting for another run that writes to {folder}" in capsys.readouterr().out


def test_where_nothing_can_be_kept_the_run_goes_on(paths, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(store.File, "write", full)
    some = kept(paths, tmp_path / "cache")
    assert colours(some) == list(range(len(paths))) and not some.reused
    assert "note: decoded photographs are not kept" in capsys.readouterr().out
    assert list((tmp_path / "cache").glob("*/*")) == []


def test_runs_at_once_share_what_the_first_one_makes(paths, tmp_path):
    (tmp_path / "cache").mkdir()
    code = """
import pathlib, sys, torch
from toolkit.data import disk_cache
from toolkit.data.framing import Framing
some = disk_cache.open_store(sys.argv[2:], Framing((24, 18)), 1.0, pathlib.Path(sys.argv[1]))
assert some.fill() == {}
print(some.reused, some.gather(torch.arange(len(some)))[:, 5, 5, 0].tolist() == list(range(len(some))))
"""
    command = [zygote.python(), "-c", code, tmp_path / "cache", *paths]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outcomes = sorted(run.communicate()[0].splitlines()[-1].split() for run in runs)
    assert outcomes == [["False", "True"], ["True", "True"], ["True", "True"]]


def test_bad_photographs_are_all_named_and_the_good_ones_kept(paths):
    for number in (2, 100):
        pathlib.Path(paths[number]).write_bytes(b"no photograph")
    os.unlink(paths[7])
    some = Store(paths, FRAMING)
    bad = some.fill()
    assert list(bad) == [2, 7, 100] and bad[7] == "no such file"
    assert (some.gather(torch.tensor([3]))[0].numpy() == decode_file(paths[3], FRAMING)).all()
    assert not some.gather(torch.tensor([7])).any() and np.array_equal(
        some.gather(torch.tensor([8]))[0, 0, 0], [8, 247, 7]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process, as Linux has them")
@pytest.mark.parametrize(("limit", "expected"), [("files", "OSError: [Errno 24]"), ("memory", "MemoryError")])
def test_an_error_of_the_machine_is_no_bad_photograph(paths, tmp_path, limit, expected):
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    code = """
import resource, sys, torch
from toolkit.data.framing import Framing
from toolkit.data.store import Store
from toolkit.system.console import InputError
assert Store(sys.argv[3:], Framing((24, 18))).fill() == {}
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
which, most = (resource.RLIMIT_NOFILE, 3) if sys.argv[1] == "files" else (resource.RLIMIT_AS, in_use + 2**25)
resource.setrlimit(which, (most, most))
try:
    print(Store([sys.argv[2]], Framing((24, 18))).fill())
except InputError as error:
    print(error)
"""
    command = [zygote.python(), "-c", code, limit, tmp_path / "large.png", *paths[:3]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f"photograph 1 of 1 cannot be read now ({expected}" in done.stdout, done.stdout + done.stderr


def test_what_lies_in_a_file_takes_no_memory(paths):
    code = """
import resource, sys, torch
from toolkit.data.framing import Framing
from toolkit.data.store import Store
small, large = Framing((64, 64)), Framing((240, 240))
few = [Store(sys.argv[1:], small, memory_gib=0), Store(sys.argv[1:] * 10, large, memory_gib=0)]
peaks = []
for some in few:
    assert some.fill() == {}
    for index in torch.arange(len(some)).split(64):
        some.gather(index)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10))
print(few[1].bytes / 2**20, peaks[1] - peaks[0])
"""
    done = subprocess.run([sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    store_mib, growth_mib = map(float, done.stdout.splitlines()[-1].split())  # a busy machine says how far it is
    assert store_mib > 200 and growth_mib < 100
