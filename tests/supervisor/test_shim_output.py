"""What an engine says, cut into lines: no process, no clock."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from supervisor.shim.output import LINE_CHARS, TAIL_LINES, LogFile, Output


def listening(tmp_path: Path, limit: int = 10**6) -> Output:
    """An output that logs into *tmp_path*."""
    return Output(LogFile(str(tmp_path / "log"), limit))


class Unlogged(LogFile):
    """A log nobody keeps."""

    def __init__(self) -> None:
        self.lost_bytes = 0

    def write(self, line: str) -> None:
        """Forget it."""


def test_lines_are_kept_without_colours_and_control_characters(tmp_path: Path) -> None:
    output = listening(tmp_path)
    output.feed(b"\x1b[0;36m(EngineCore pid=1)\x1b[0;0m hi\x07\r\nsecond\n", 1.0)
    assert output.tail() == ["(EngineCore pid=1) hi", "second"]
    assert (tmp_path / "log").read_text() == "(EngineCore pid=1) hi\nsecond\n"


def test_a_progress_bar_is_one_open_line_that_ends_with_its_last_state(tmp_path: Path) -> None:
    output = listening(tmp_path)
    for percent in range(0, 101, 10):
        output.feed(f"\rloading {percent}%".encode(), 0.01 * percent)
    assert output.tail() == ["loading 100%"]
    assert output.count == 0
    output.feed(b"\ndone\n", 2.0)
    assert output.tail() == ["loading 100%", "done"]
    logged = (tmp_path / "log").read_text().splitlines()
    assert logged[-2:] == ["loading 100%", "done"]
    assert len(logged) < 6  # at most one a second


def test_a_bar_that_the_next_line_overwrites_leaves_that_line_only(tmp_path: Path) -> None:
    output = listening(tmp_path)
    output.feed(b"50%\rERROR out of memory\n", 0.0)
    assert output.tail() == ["ERROR out of memory"]


def test_last_words_without_a_line_end_are_kept(tmp_path: Path) -> None:
    output = listening(tmp_path)
    output.feed(b"Segmentation fau", 0.0)
    output.finish()
    assert output.tail() == ["Segmentation fau"]


def test_the_ring_the_lines_and_endless_output_are_bounded(tmp_path: Path) -> None:
    output = listening(tmp_path)
    output.feed(b"x" * 50_000, 0.0)
    output.feed(b"\n".join(b"line %d" % n for n in range(1000)) + b"\n", 0.0)
    assert len(output.ring) == TAIL_LINES
    assert output.tail(2) == ["line 998", "line 999"]
    output.feed(b"y" * 3000 + b"\n", 0.0)
    assert len(output.tail()[-1]) == LINE_CHARS
    assert output.since(output.count - 1) == output.tail(1)
    assert len(output.since(0)) == TAIL_LINES


@given(
    st.lists(st.text(alphabet="ab\u00e9 ", min_size=1).map(str.strip).filter(bool), max_size=20), st.data()
)
def test_where_the_output_is_cut_makes_no_difference(lines: list[str], data: st.DataObject) -> None:
    whole = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    output = Output(Unlogged())
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        output.feed(whole[start:end], 0.0)
    assert output.tail() == lines


def test_log_files_are_limited_and_continued(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), 100)
    for number in range(50):
        log.write(f"line {number:04}")
    old, new = (tmp_path / "log.1").read_text(), (tmp_path / "log").read_text()
    assert max(len(old), len(new)) <= 100
    assert (old + new).splitlines()[-3:] == ["line 0047", "line 0048", "line 0049"]
    again = LogFile(str(tmp_path / "log"), 100)
    again.write("next daemon")
    assert "next daemon" in (tmp_path / "log").read_text()


def test_a_log_that_cannot_be_written_says_later_what_was_lost(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    log = LogFile(str(folder / "log"), 1000)
    log.write("lost")
    folder.mkdir()
    log.write("kept")
    assert (folder / "log").read_text() == "[modelyard] 5 bytes of output could not be written\nkept\n"
