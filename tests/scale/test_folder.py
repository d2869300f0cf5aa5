"""The output folder: whole files, one run at a time, only runs of the same settings, parts that are left to do."""

from __future__ import annotations

import dataclasses

import pytest

from igonnx.errors import InputError
from igonnx.scale.folder import Attempts, Folder, write_whole
from igonnx.scale.listing import ONLY, Listing

pytest.importorskip("pyarrow", reason="igonnx[ray] is not installed")

ROWS = Listing([("a.png", ONLY), ("x.npy", 0), ("x.npy", 1), ("b.png", ONLY), ("c.png", ONLY)])


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "out")


def test_a_run_goes_on_with_what_is_not_done(folder, job):
    with folder.locked():
        assert folder.begin(job, ROWS, 2) == 2
        assert [folder.rows_of(part) for part in range(3)] == [
            ROWS.rows[:2],
            ROWS.rows[2:4],
            ROWS.rows[4:],
        ]
        assert folder.unfinished(3) == [0, 1, 2]
        folder.state(1).touch()
    with folder.locked():
        assert folder.begin(job, ROWS, 5) == 2, "its parts stay as they were"
        assert folder.unfinished(3) == [0, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"steps": 9}}, "begun with steps = 8, now it is 9"),
        ({"options": {}}, "begun with steps = 8, now it is none"),
        ({"baseline": 1.0}, "begun with baseline = none, now it is 1.0"),
        ({"model_sha256": "f" * 64}, "begun with model = "),
        ({"labels": ("a", "b")}, "begun with labels = "),
        ({"settings": {"apply": "softmax"}}, "begun with apply = none, now it is softmax"),
    ],
)
def test_another_run_is_refused(folder, job, change, message):
    with folder.locked():
        folder.begin(job, ROWS, 2)
        with pytest.raises(InputError, match=message):
            folder.begin(dataclasses.replace(job, **change), ROWS, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [(ROWS.rows[:4], "5 rows, now there are 4"), (ROWS.rows[::-1], "begun with other inputs")],
)
def test_other_rows_are_refused(folder, job, rows, message):
    with folder.locked():
        folder.begin(job, ROWS, 2)
        with pytest.raises(InputError, match=message):
            folder.begin(job, Listing(rows), 2)


def test_how_a_run_runs_may_change(folder, job, tmp_path):
    with folder.locked():
        folder.begin(job, ROWS, 2)
        other = dataclasses.replace(job, running={"threads": 3}, batch=1, root=tmp_path / "moved")
        assert folder.begin(other, ROWS, 2) == 2


def test_a_folder_of_something_else_is_refused(folder, job):
    folder.path.mkdir()
    (folder.path / "thesis.tex").touch()
    with folder.locked(), pytest.raises(InputError, match=r"is not empty \(thesis.tex\)"):
        folder.begin(job, ROWS, 2)


def test_a_damaged_manifest_is_refused(folder, job):
    folder.path.mkdir()
    (folder.path / "manifest.json").write_text("{")
    with folder.locked(), pytest.raises(InputError, match=r"manifest.json' cannot be read"):
        folder.begin(job, ROWS, 2)


def test_two_runs_do_not_write_one_folder(folder):
    with folder.locked(), pytest.raises(InputError, match="another run"), folder.locked():
        pass


def test_a_folder_that_cannot_be_made_is_refused(folder, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="cannot write to folder"), folder.locked():
        pass


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    def fail(path):
        path.write_text("half")
        raise RuntimeError

    path = tmp_path / "file"
    with pytest.raises(RuntimeError):
        write_whole(path, fail)
    assert list(tmp_path.iterdir()) == []
    write_whole(path, lambda temporary: temporary.write_text("whole"))
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def die(folder, rows=()):
    """Leave what an attempt leaves whose worker is killed while it is at the last of these rows."""
    attempts = Attempts(folder, 7, "explain").__enter__()
    assert all(attempts.survived(row) for row in rows)


def test_rows_that_kill_workers_are_found(folder, job):
    with folder.locked():
        folder.begin(job, ROWS, 2)
        die(folder)
        die(folder)
        die(folder, rows=[0, 1, 2])
        with Attempts(folder, 7, "explain") as attempts:
            assert attempts.careful
            assert [attempts.survived(row) for row in range(4)] == [True, True, False, True]
        with Attempts(folder, 7, "explain") as attempts:
            assert not attempts.careful, "the part came to its end"


def test_a_new_run_forgets_the_deaths_of_the_last(folder, job):
    with folder.locked():
        folder.begin(job, ROWS, 2)
        die(folder)
        die(folder)
        folder.begin(job, ROWS, 2)
        with Attempts(folder, 7, "explain") as attempts:
            assert not attempts.careful
