"""Temporary files of killed processes are cleared by the next that writes there; those of others stay."""

import os

from mvf.files import atomic, clear_leftovers
from tests.faults.processes import CONTEXT, leftovers


def die_in_a_write(path):
    with atomic(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), 9)


def test_what_a_killed_process_left_is_cleared_by_the_next_write_of_any_file_there(tmp_path):
    for name in ("state.pt", "history.csv"):
        child = CONTEXT.Process(target=die_in_a_write, args=(tmp_path / name,))
        child.start()
        child.join()
        assert len(leftovers(tmp_path)) == 1, "they do not pile up"
        assert not (tmp_path / name).exists()
    with atomic(tmp_path / "other.json") as path:
        path.write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_temporary_files_of_living_processes_other_machines_and_other_programs_stay(tmp_path):
    with atomic(tmp_path / "a.txt") as living:
        living.write_text("half")
        others = [tmp_path / name for name in (".a.mvf-000000-999999.txt", ".a.txt.swp", "a.mvf.txt")]
        for path in others:
            path.write_text("")
        clear_leftovers.cache_clear()
        clear_leftovers(tmp_path, os.getpid())
        assert living.exists() and all(path.exists() for path in others)
