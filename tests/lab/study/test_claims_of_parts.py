"""Claims of folders: exclusive, given back, taken over from the dead and the silent, and lost to others."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from supple.lab.study import claims

ELSEWHERE = {"host": "elsewhere", "boot": "00000000", "space": "pid:[1]", "process": 1, "started": "1"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.1)
    monkeypatch.setattr(claims, "LOST_AFTER", 0.8)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def of_another_machine(folder: Path, number: int = 1, renewed: int = 0) -> None:
    """What a holder on another machine has written."""
    content = {"holder": ELSEWHERE, "renewed": renewed, "note": {}, "given_back": False, "before": []}
    (folder / f".claim-{number:06d}").write_text(json.dumps(content))


def test_one_after_the_other(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with claims.claimed(tmp_path) as holder:
            claim = claims.read(tmp_path)
            assert claim is not None
            assert (claim.number, claim.free) == (number, False)
            with pytest.raises(claims.Busy, match=f"it is process {os.getpid()} on "), claims.claimed(tmp_path):
                pass
            with pytest.raises(claims.Busy), claims.take(tmp_path, None):
                pass
            holder.renew()
        claim = claims.read(tmp_path)
        assert claim is not None
        assert claim.given_back
        # One file, however often.
        assert names(tmp_path) == [f".claim-{number:06d}"]


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    """Also where all have seen the same one that may be taken over."""
    of_another_machine(tmp_path, 4)
    seen = claims.read(tmp_path)
    barrier, won, gone = threading.Barrier(20), [], threading.Event()

    def attempt() -> None:
        barrier.wait()
        try:
            holder = claims.Holder(tmp_path, seen, {})
        except claims.Busy:
            return
        won.append(holder)
        gone.wait()
        holder.give_back()

    threads = [threading.Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert len(won) == 1
    gone.set()
    for thread in threads:
        thread.join()


def test_who_has_seen_it_long_ago_does_not_win(tmp_path: Path) -> None:
    """Others have had it and given it back since."""
    of_another_machine(tmp_path)
    seen = claims.read(tmp_path)
    for _ in range(3):
        with claims.claimed(tmp_path, wait=3):
            pass
    with pytest.raises(claims.Busy):
        claims.Holder(tmp_path, seen, {})
    with pytest.raises(claims.Busy):
        claims.Holder(tmp_path, None, {})
    assert names(tmp_path) == [".claim-000004"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that do not exec are of POSIX")
def test_the_claim_of_a_process_that_has_ended_here_is_free_at_once(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        claims.Holder(tmp_path, None, {})
        os.write(write, b"1")
        time.sleep(60)
        os._exit(0)
    os.read(read, 1)
    with pytest.raises(claims.Busy), claims.claimed(tmp_path):
        pass
    os.kill(child, 9)
    time.sleep(0.1)
    # Its parent has not asked yet how it ended.
    with claims.claimed(tmp_path):
        pass
    os.waitpid(child, 0)


@pytest.mark.parametrize("when", [0, 2**31])
def test_the_claim_of_another_machine_is_judged_by_its_changes_and_no_clock(tmp_path: Path, when: int) -> None:
    of_another_machine(tmp_path)
    path, end = tmp_path / ".claim-000001", threading.Event()

    def renew() -> None:
        number = 0
        while not end.wait(0.1):
            number += 1
            of_another_machine(tmp_path, renewed=number)
            os.utime(path, (when, when))

    thread = threading.Thread(target=renew)
    thread.start()
    with pytest.raises(claims.Busy, match="it is process 1 on elsewhere"), claims.claimed(tmp_path, wait=2):
        pass
    end.set()
    thread.join()
    began = time.monotonic()
    with claims.claimed(tmp_path, wait=5):
        assert time.monotonic() - began >= claims.LOST_AFTER
        claim = claims.read(tmp_path)
        assert claim is not None
        assert [one["host"] for one in claim.holders] == ["elsewhere", claims.here()["host"]]


def test_who_was_taken_for_lost_finds_out_before_it_writes(tmp_path: Path) -> None:
    with claims.claimed(tmp_path) as slow:
        slow._done.set()
        slow._thread.join()
        with claims.claimed(tmp_path, wait=5), pytest.raises(claims.Lost, match="taken over"):
            slow.renew()
    assert names(tmp_path) == [".claim-000002"]


def test_a_claim_that_nobody_can_read_is_taken_over_as_one_that_is_silent(tmp_path: Path) -> None:
    (tmp_path / ".claim-000001").write_bytes(b"{")
    with pytest.raises(claims.Busy), claims.claimed(tmp_path):
        pass
    with claims.claimed(tmp_path, wait=5):
        pass


def test_a_watcher_says_which_claim_is_lost(tmp_path: Path) -> None:
    of_another_machine(tmp_path)
    watch, claim = claims.Watch(), claims.read(tmp_path)
    assert claim is not None
    assert watch.silent(tmp_path, claim) == 0
    time.sleep(0.2)
    assert watch.silent(tmp_path, claim) >= 0.2
    with claims.take(tmp_path, claims.mark(claim)):
        pass


def test_a_folder_that_is_refused_is_left_as_it_was(tmp_path: Path) -> None:
    for expected in ([], [".claim-000001"], [".claim-000002"]):
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(ValueError, match="refused"), claims.claimed(tmp_path):
            raise ValueError("refused")
        assert names(tmp_path) == expected
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
        with claims.claimed(tmp_path):
            pass
