"""A line on a real Ray: every item comes out once, or the line ends with the item's own error."""

import os
import pickle
import signal
from contextlib import closing
from functools import partial

import psutil
import pyarrow as pa
import pytest

from cfray.engine import interrupts
from cfray.engine.lines import ActorLine, ActorPool, LineOptions, TaskLine
from cfray.errors import EngineError, Interrupted, SourceError
from tests.testbeds.processes import until


@pytest.fixture(autouse=True)
def ray(shared_ray):
    """Have this process be a driver on the shared Ray."""
    shared_ray.join()


def line(work, **options):
    return TaskLine(LineOptions("articles", "copy_shard", **options), work=work)


def square(number):
    return number * number


@pytest.mark.parametrize("second_version", [True, False])
def test_every_item_comes_out_once_and_the_engine_says_so(monkeypatch, second_version):
    from ray.data import DataContext  # Ray reads its settings when it is imported

    monkeypatch.setattr(DataContext.get_current(), "use_datasource_v2", second_version)
    squares = line(square)
    assert sorted(squares.run(range(9))) == [number * number for number in range(9)]
    assert [(operator["name"], operator["rows"]) for operator in squares.operators] == [
        ("FromItems", 9),
        ("MapBatches(copy_shard)", 9),
    ]


@pytest.mark.parametrize("job", ["a/b: 2024", "../é*?\\", "x" * 300, "日本" * 200])
def test_a_job_may_have_any_name(job):
    """Ray Data opens a file that has the line's name in its own, and counts under that name."""
    squares = TaskLine(LineOptions(job, "copy_shard"), work=square)
    assert sorted(squares.run(range(3))) == [0, 1, 4]


def test_a_line_without_items_starts_nothing():
    assert list(line(square).run([])) == []


def refuse_three(number):
    if number == 3:
        raise SourceError("page 3 is gone", "export it again")
    return number


def divide(number):
    return 6 // number


def test_an_error_of_the_body_comes_as_it_was_raised():
    with pytest.raises(SourceError) as raised:
        list(line(refuse_three).run(range(6)))
    assert (raised.value.what, raised.value.remedy) == ("page 3 is gone", "export it again")


def test_an_unexpected_error_says_where_it_was_raised():
    with pytest.raises(ZeroDivisionError) as raised:
        list(line(divide).run([0]))
    assert "in divide" in "".join(raised.value.__notes__)


class Unreadable(Exception):
    """Pickles, and cannot be read back: its constructor wants two values."""

    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")


def raise_unreadable(_):
    raise Unreadable("disk", "full")


def test_an_error_that_no_pickle_carries_keeps_its_text():
    with pytest.raises(RuntimeError, match="Unreadable: disk: full"):
        list(line(raise_unreadable).run([1]))


class Torn(TaskLine):
    """A line whose third item fails outside of its work, where no error becomes a row."""

    def _body(self):
        body = super()._body()

        def torn(block):
            if pickle.loads(block["item"][0].as_py()) == 2:
                raise OSError("no memory for the block")
            return body(block)

        return torn


def test_no_item_is_lost_whatever_the_program_around_allows(monkeypatch):
    from ray.data import DataContext  # Ray reads its settings when it is imported

    monkeypatch.setattr(DataContext.get_current(), "max_errored_blocks", 5)
    with pytest.raises(Exception, match="no memory for the block"):
        list(Torn(LineOptions("articles", "copy_shard"), work=square).run(range(5)))


class Doubled(TaskLine):
    """A line whose second item comes out twice."""

    def _body(self):
        body = super()._body()

        def doubled(block):
            is_second = pickle.loads(block["item"][0].as_py()) == 1
            return pa.concat_tables([body(block)] * (2 if is_second else 1))

        return doubled


def test_an_item_that_comes_out_twice_is_noticed():
    with pytest.raises(EngineError, match="gave 6 results of 5 items"):
        list(Doubled(LineOptions("articles", "copy_shard"), work=square).run(range(5)))


def die_once(folder, number):
    mark = folder / str(number)
    if number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_an_item_whose_worker_died_is_done_again(tmp_path):
    assert sorted(line(partial(die_once, tmp_path)).run(range(5))) == list(range(5))
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def wait_for_all(folder, count, number):
    """End when so many items are at work at once."""
    (folder / str(number)).touch()
    until(lambda: len(list(folder.iterdir())) >= count, f"{count} items are at work")
    return number


def test_two_items_are_at_work_at_once_on_two_cores(tmp_path):
    work = partial(wait_for_all, tmp_path, 2)
    assert sorted(line(work).run([1, 2])) == [1, 2]


def count_at_work(folder, number):
    """Give the number of items that were at work, this one included."""
    mark = folder / str(number)
    mark.touch()
    at_work = len(list(folder.iterdir()))
    mark.unlink()
    return at_work


def test_no_more_items_are_at_work_than_the_job_allows(tmp_path):
    work = partial(count_at_work, tmp_path)
    assert set(line(work, max_items=1).run(range(8))) == {1}


def test_a_signal_ends_a_line_whose_items_take_long(tmp_path):
    mark = tmp_path / "go on"
    results = line(partial(signal_driver, os.getpid(), mark)).run([1, 2])
    with pytest.raises(Interrupted), interrupts.catch_signals(), closing(results):
        list(results)
    mark.touch()


def signal_driver(driver, mark, number):
    os.kill(driver, signal.SIGTERM)
    until(mark.exists, "the test lets the item go on")
    return number


class Opened:
    """What an actor opens: it leaves a mark when it is opened, and when it has an item."""

    def __init__(self, folder, count):
        self.folder, self.count, self.name = folder, count, f"{os.getpid()}"
        (folder / f"opened-{self.name}").touch()

    def __call__(self, number):
        (self.folder / f"working-{self.name}").touch()
        until(
            lambda: len(list(self.folder.glob("working-*"))) >= self.count,
            f"{self.count} actors are at work",
        )
        return self.name, number


def actor_line(open_work, smallest, largest):
    return ActorLine(
        LineOptions("articles", "embed_piece", cpus=0.1),
        open_work=open_work,
        pool=ActorPool(smallest, largest),
    )


def test_a_pool_grows_to_the_work_and_each_actor_opens_once(tmp_path):
    """Every item waits until four actors are at work, so no fewer bring the line to its end."""
    pool = actor_line(partial(Opened, tmp_path, 4), 1, 4)
    results = list(pool.run(range(16)))
    assert sorted(number for _, number in results) == list(range(16))
    names = {name for name, _ in results}
    assert len(names) == 4
    assert {path.name for path in tmp_path.glob("opened-*")} == {f"opened-{name}" for name in names}
    assert pool.operators[-1]["name"] == "MapBatches(embed_piece)"
    assert pool.operators[-1]["rows"] == 16


class WaitsForTheOthersToGo:
    """Three actors have ended before the last item's actor lets it end."""

    def __init__(self, folder):
        self.folder = folder
        (folder / f"up-{os.getpid()}").touch()

    def __call__(self, number):
        until(lambda: len(list(self.folder.iterdir())) >= 4, "four actors are up")
        if number == 0:
            until(lambda: self.actors_that_live() == 1, "three actors are gone")
        return number

    def actors_that_live(self):
        pids = [int(path.name.partition("-")[2]) for path in self.folder.iterdir()]
        return sum(psutil.pid_exists(pid) for pid in pids)


def test_a_pool_shrinks_while_its_last_item_takes_long(tmp_path):
    pool = actor_line(partial(WaitsForTheOthersToGo, tmp_path), 1, 4)
    assert sorted(pool.run(range(8))) == list(range(8))


def refuse_to_open():
    raise SourceError("the model is gone", "put it back")


def test_what_cannot_be_opened_ends_the_line_with_its_error():
    with pytest.raises(SourceError) as raised:
        list(actor_line(refuse_to_open, 1, 2).run([1, 2]))
    assert raised.value.what == "the model is gone"
