"""A row that kills its actor is given up alone; each other row is computed, and is there once.

``dying_actors.py`` makes the attempts: each is a process, and a death is the end of a process.
"""

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfray.embedding.ranges import DEADLY_TEXT

SCRIPT = Path(__file__).with_name("dying_actors.py")
ROOT = SCRIPT.parent.parent.parent
#: More lines than an attempt at one of the small items here executes before it is done.
LINES = 400
#: More attempts than any item here takes.
ENOUGH = 200

lines = st.integers(1, LINES)
examples = settings(max_examples=20, deadline=None, derandomize=True)


@dataclass
class Item:
    """An item in a folder of its own, and what its attempts said."""

    process: subprocess.Popen
    folder: Path
    rows: int
    deadly: tuple = ()
    name: str = "7-abc.piece"
    epoch: int = 1
    attempts: list = field(default_factory=list)

    def attempt(self, die_at=0, stop_at=0, **faults):
        """Attempt the item once; give what the attempt said."""
        order = {
            "folder": str(self.folder),
            "name": self.name,
            "rows": self.rows,
            "epoch": self.epoch,
            "deadly": self.deadly,
            "failing": [],
            "is_model_dead": False,
            "is_another_deadly": False,
            "is_another_failing": False,
            "die_at": die_at,
            "stop_at": stop_at,
        }
        finished = self.finished()
        words = self.ask({**order, **faults})
        self.attempts.append(words)
        calls = [word for word in words if word[0] == "compute"]
        again = [call for call in calls if finished & set(range(call[1], call[1] + call[2]))]
        assert not again, "a finished range is done again"
        return words

    def go_on(self):
        """Let the stopped attempt go on; give what it says then."""
        return self.ask("go on")

    def ask(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def repeat(self, **faults):
        """Attempt the item as Ray does, until a process ends by itself; give its last word."""
        for _ in range(ENOUGH):
            words = self.attempt(**faults)
            if has_ended(words):
                return words[-1]
        raise AssertionError(f"no attempt ended: {self.names()}")

    @property
    def deaths(self):
        return sum(not has_ended(words) for words in self.attempts)

    def names(self):
        return sorted(path.name for path in (self.folder / self.name).glob("*"))

    def finished(self):
        """Give the rows that are in a file."""
        spans = [name.split(".")[0].split("-") for name in self.names() if name.endswith(".arrow")]
        return {row for first, rows in spans for row in range(int(first), int(first) + int(rows))}

    def refused(self, last_word):
        """Check that an attempt's files hold each row once; give the rows that are given up."""
        kind, files = last_word
        assert kind == "files", last_word
        following, refused = 0, []
        for first, rows, name in files:
            assert first == following
            assert name.endswith(".arrow")
            content = json.loads((self.folder / self.name / name).read_bytes())
            if content == {"refused": first}:
                assert rows == 1
                refused.append(first)
            else:
                assert content == list(range(first, first + rows))
            following += rows
        assert following == self.rows
        return refused


def has_ended(words):
    """Tell whether the process ended by itself."""
    return bool(words) and words[-1][0] in ("files", "error")


@pytest.fixture(scope="module")
def actors():
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def item(actors, tmp_path_factory):
    """Make an item of some rows, some of them deadly."""
    folder = tmp_path_factory.mktemp("items")
    return lambda rows, *deadly: Item(actors, folder / uuid.uuid4().hex, rows, deadly)


def ranges_around(deadly, first, rows):
    """Count the ranges of two rows and more that halving visits on its way to the deadly rows."""
    if rows == 1 or not any(first <= row < first + rows for row in deadly):
        return 0
    half = rows // 2
    left = ranges_around(deadly, first, half)
    return 1 + left + ranges_around(deadly, first + half, rows - half)


def test_usually_an_item_is_one_mark_and_one_file(item):
    whole = item(4_096)
    kind, [[first, rows, name]] = whole.repeat()
    assert (kind, first, rows) == ("files", 0, 4_096)
    mark, file = sorted(whole.names(), key=lambda name: name.endswith(".arrow"))
    assert (mark[:7], mark[-6:]) == ("0-4096.", ".begun")
    assert file == name
    assert whole.attempts == [[["compute", 0, 4_096], ["files", [[0, 4_096, name]]]]]


def test_a_finished_item_gives_its_files_without_the_model(item):
    whole = item(10)
    last_word = whole.repeat()
    assert whole.attempt(is_model_dead=True) == [last_word]


def test_an_item_without_rows_is_done_and_writes_no_file(item):
    empty = item(0)
    assert empty.repeat() == ["files", []]
    assert empty.names() == []


def test_a_deadly_row_among_65_536_costs_19_deaths(item):
    """The whole, 15 halves of two rows and more, the row three times; at most 20 are allowed."""
    large = item(65_536, 40_001)
    assert large.refused(large.repeat()) == [40_001]
    assert large.deaths == 1 + 15 + 3
    assert len([name for name in large.names() if name.endswith(".arrow")]) == 17


@pytest.mark.parametrize(
    ("rows", "deadly"),
    [
        (1, (0,)),
        (2, (1,)),
        (65_535, (0,)),
        (4_096, (4_095,)),
        (1_000, (499, 500)),
        (1_000, (500, 501)),
        (100, (0, 99)),
        (777, (3, 4, 776)),
        (5, (0, 1, 2, 3, 4)),
    ],
)
def test_deadly_rows_are_given_up_and_cost_no_other_row(item, rows, deadly):
    poisoned = item(rows, *deadly)
    assert poisoned.refused(poisoned.repeat()) == sorted(deadly)
    assert poisoned.deaths == ranges_around(deadly, 0, rows) + 3 * len(deadly)
    reasons = [word[2] for words in poisoned.attempts for word in words if word[0] == "refuse"]
    assert reasons == [DEADLY_TEXT] * len(deadly)


def test_a_row_is_given_up_where_another_text_was_embedded_before_its_last_start_and_after(item):
    poisoned = item(1, 0)
    poisoned.repeat()
    start, another, refusal = ["compute", 0, 1], ["another", 0], ["refuse", 0, DEADLY_TEXT]
    *deaths, last = poisoned.attempts
    assert deaths == [[start], [start], [another, start]]
    assert last[:-1] == [another, refusal]


@pytest.mark.parametrize("rows", [1, 2, 9, 65_536])
def test_a_model_that_dies_over_every_text_stops_the_run_and_no_row_is_given_up(item, rows):
    hopeless = item(rows)
    kind, error, what, remedy = hopeless.repeat(is_model_dead=True)
    assert (kind, error) == ("error", "TargetError")
    assert "die over every text: over row 0 of 7-abc.piece" in what
    assert "the row was not quarantined" in what
    assert all(word in remedy for word in ("memory", "embedding.actors", "engine", "dtype"))
    assert hopeless.finished() == set()
    assert not [word for words in hopeless.attempts for word in words if word[0] == "refuse"]
    assert hopeless.deaths == ranges_around((0,), 0, rows) + 2 + 3
    assert hopeless.repeat(is_model_dead=True)[1] == "TargetError"  # Ray lost the first error
    hopeless.epoch += 1  # the same command again, as the remedy says
    assert hopeless.refused(hopeless.repeat()) == []


def test_a_model_that_dies_between_deadly_texts_stops_the_run_after_three_more_trials(item):
    poisoned = item(1, 0)
    for _ in range(3):
        assert not has_ended(poisoned.attempt())
    assert poisoned.repeat(is_another_deadly=True)[1] == "TargetError"
    assert poisoned.deaths == 3 + 3
    poisoned.epoch += 1  # the row has its three starts again, and is deadly still
    assert poisoned.refused(poisoned.repeat()) == [0]
    assert poisoned.deaths == 6 + 3


@pytest.mark.parametrize("deaths", range(1, 10))
def test_a_run_stopped_while_its_model_was_dead_goes_on_and_gives_no_row_up(item, deaths):
    """Other items of the run may stop it at any moment; then the model gets more memory."""
    stopped = item(8)
    for _ in range(deaths):
        stopped.attempt(is_model_dead=True)
    stopped.epoch += 1
    assert stopped.refused(stopped.repeat()) == []


@pytest.mark.parametrize("rows", [1, 8])
def test_an_error_goes_through_and_counts_for_no_row(item, rows):
    unlucky = item(rows)
    error = ["error", "EmbeddingUnavailable", "the server is busy", "try again"]
    for _ in range(5):
        assert unlucky.attempt(failing=[rows - 1]) == [["compute", 0, rows], error]
    assert unlucky.names() == []
    [[first, count, _]] = unlucky.repeat()[1]
    assert (first, count) == (0, rows)


def test_an_error_while_another_text_is_embedded_counts_for_no_trial(item):
    poisoned = item(1, 0)
    for _ in range(2):
        poisoned.attempt()
    for _ in range(5):
        assert poisoned.attempt(is_another_failing=True)[-1][1] == "EmbeddingUnavailable"
    assert poisoned.refused(poisoned.repeat()) == [0]
    assert poisoned.deaths == 3


def test_a_death_at_any_line_costs_no_row_and_no_finished_range(item):
    for line in range(1, LINES):
        killed = item(6)
        words = killed.attempt(die_at=line)
        if has_ended(words):
            break
        assert killed.refused(killed.repeat()) == []
    assert 30 < line < LINES - 1


@examples
@given(rows=st.integers(8, 40), kills=st.lists(lines, max_size=5))
def test_deaths_at_random_moments_cost_no_row(item, rows, kills):
    """Five deaths are too few to come down to a row of eight and to kill it three times."""
    killed = item(rows)
    for line in kills:
        killed.attempt(die_at=line)
    assert killed.refused(killed.repeat()) == []


@examples
@given(data=st.data(), rows=st.integers(1, 20), kills=st.lists(st.tuples(lines, lines), max_size=2))
def test_deaths_at_random_moments_beside_deadly_rows_give_up_the_deadly_rows_alone(
    item, data, rows, kills
):
    deadly = data.draw(st.sets(st.integers(0, rows - 1), max_size=3))
    poisoned = item(rows, *deadly)
    for attempts, line in kills:
        for _ in range(attempts % 10):
            poisoned.attempt()
        poisoned.attempt(die_at=line)
    assert poisoned.refused(poisoned.repeat()) == sorted(deadly)


@pytest.fixture(scope="module")
def mark_line(item):
    """Give the line of an attempt that leaves the mark of the whole."""
    for line in range(2, LINES):
        killed = item(8)
        killed.attempt(die_at=line)
        if any(name.endswith(".begun") for name in killed.names()):
            return line - 1
    raise AssertionError


@pytest.fixture(scope="module")
def compute_line(item, mark_line):
    """Give the line of an attempt that comes right after it was asked to compute the whole."""
    after = range(mark_line, LINES)
    return next(line for line in after if ["compute", 0, 8] in item(8).attempt(die_at=line))


def test_a_process_taken_for_dead_that_finishes_the_whole_doubles_no_row(item, compute_line):
    shared = item(8)
    assert shared.attempt(stop_at=compute_line)[-1] == ["stopped"]
    of_halves = shared.repeat()
    assert [span[:2] for span in of_halves[1]] == [[0, 4], [4, 4]]
    of_the_whole = shared.go_on()[-1]
    assert [span[:2] for span in of_the_whole[1]] == [[0, 8]]
    # both are whole, and stay so; a later attempt takes the larger range
    assert shared.refused(of_halves) == shared.refused(of_the_whole) == []
    assert shared.attempt() == [of_the_whole]


def test_a_process_taken_for_dead_that_fails_leaves_the_halves_of_another(item, compute_line):
    shared = item(8)
    assert shared.attempt(stop_at=compute_line, failing=[7])[-1] == ["stopped"]
    of_halves = shared.repeat()
    assert shared.go_on()[-1][1] == "EmbeddingUnavailable"
    assert shared.attempt() == [of_halves]


def test_two_attempts_that_make_the_same_of_a_range_give_one_file(item, mark_line):
    """Two attempts may find the same: no mark, no file."""
    shared = item(8)
    assert shared.attempt(stop_at=mark_line)[-1] == ["stopped"]
    results = [shared.repeat(), shared.go_on()[-1]]
    assert [shared.refused(result) for result in results] == [[], []]
    files = [name for name in shared.names() if name.endswith(".arrow")]
    assert [result[1][0][2] for result in results] == files * 2
    assert shared.attempt() == [["files", [[0, 8, files[0]]]]]


@examples
@given(
    data=st.data(),
    rows=st.integers(1, 12),
    earlier=st.integers(0, 4),
    stop_at=lines,
    kills=st.lists(lines, max_size=2),
    is_failing=st.booleans(),
)
def test_a_process_taken_for_dead_at_any_moment_doubles_no_row(item, data, **drawn):
    """An attempt stands still at any line, others go on, and then it goes on, too."""
    rows, earlier, stop_at, kills, is_failing = drawn.values()
    deadly = data.draw(st.sets(st.integers(0, rows - 1), max_size=1))
    shared = item(rows, *deadly)
    for _ in range(earlier):
        shared.attempt()
    failing = [rows - 1] if is_failing else []
    words = shared.attempt(stop_at=stop_at, failing=failing)
    for line in kills:
        shared.attempt(die_at=line)
    results = [shared.repeat()]
    if words[-1:] == [["stopped"]]:
        results += [word for word in shared.go_on() if word[0] == "files"]
    results.append(shared.repeat())
    for result in results:
        assert set(shared.refused(result)) <= deadly
    assert shared.refused(results[0]) == sorted(deadly)


def test_this_module_loads_no_engine_and_no_dataset():
    code = "import sys, cfray.embedding.ranges; print({'ray', 'lance', 'torch'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
