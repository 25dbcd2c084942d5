"""kill -9 at random moments: nothing half-written, nothing lost, the same result in the end."""

from collections import Counter
from random import Random

import pytest

from tests.data.footage import write_video
from tests.faults.processes import (
    assert_same,
    check_whole,
    finish,
    finished_pieces,
    kill_within,
    leftovers,
    warm_up,
)

KILLS = {"train": 12, "banked": 10, "bank": 12, "embed": 12, "batch": 6}  # of the slow test


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for jobs, and the videos that they embed."""
    folder = tmp_path_factory.mktemp("kills")
    for number in range(6):
        write_video(folder / "videos" / f"v{number}.mp4", 10 + number)
    return folder


@pytest.fixture(scope="module")
def undisturbed(place):
    """`undisturbed(name)`: where a job's results lie that was left alone, and how long it took."""
    lives = {}

    def of(name):
        home = place / f"{name}-undisturbed"
        if name not in lives:
            warm_up()  # the fork server's imports are no part of a life
            lives[name] = finish(name, home)
            assert not leftovers(home)
        return home, lives[name]

    return of


def kill_and_go_on(name, home, reference, life, draw):
    """One kill; the share of the life at which it came, and whether it came in the middle of a write."""
    moment = kill_within(name, home, life, draw)
    check_whole(home)
    torn, kept = leftovers(home), finished_pieces(home)
    finish(name, home)
    check_whole(home)
    assert kept.items() <= finished_pieces(home).items(), "work that was done is not done again"
    assert not leftovers(home)
    assert_same(reference, home)
    return moment / life, bool(torn)


@pytest.mark.parametrize("name", ["train", "bank", "embed"])
def test_killed_at_any_moment_and_started_again_is_as_never_killed(name, place, undisturbed):
    reference, life = undisturbed(name)
    kill_and_go_on(name, place / f"{name}-once", reference, life, Random(6))


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_many_kills_lose_nothing(name, place, undisturbed, record_property, capsys):
    hits, draw = Counter(), Random(name)
    reference, life = undisturbed(name)
    for number in range(KILLS[name]):
        share, torn = kill_and_go_on(name, place / f"{name}-{number}", reference, life, draw)
        hits[f"in quarter {1 + int(share * 4)}"] += 1
        hits["in the middle of a write"] += torn
    line = ", ".join(f"{what} {hits[what]}" for what in sorted(hits))
    record_property("kills", line)
    with capsys.disabled():
        print(f"\n{name}: {KILLS[name]} kills over a life of {life:.1f} s; {line}")


def test_the_kills_of_the_slow_tests_are_at_least_fifty():
    assert sum(KILLS.values()) >= 50
