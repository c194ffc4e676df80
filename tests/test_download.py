"""Laws of a download: a server may do what it likes, and only the right file takes the name."""

import errno
import gzip
import os
import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from threading import Event, Thread

import pytest

from didiff.data import download
from tests.emulations import like_windows

CONTENT = random.Random(0).randbytes(2**18)  # many times what is written at once
HALF = len(CONTENT) // 2
PATIENCE = 30.0


def check(path):
    if path.read_bytes() != CONTENT:
        raise ValueError("it is another file")


# -- a server that misbehaves as told --------------------------------------------------------------


def whole(handler, start):
    send(handler, 200, CONTENT)


def ranged(handler, start):
    """What a good server does: all of it, or what follows `start`."""
    if start >= len(CONTENT):
        handler.send_error(416)
    else:
        send(handler, 206 if start else 200, CONTENT[start:])


def cut_half_way(handler, start):
    rest = CONTENT[start:]
    send(handler, 206 if start else 200, rest[: len(rest) // 2], promised=len(rest))


def cut_the_whole_half_way(handler, start):
    send(handler, 200, CONTENT[:HALF], promised=len(CONTENT))


def wrong_bytes(handler, start):
    send(handler, 200, b"<html>please log in</html>")


def not_there(handler, start):
    handler.send_error(404)


def nothing_follows(handler, start):
    handler.send_error(416)


def packs_for_who_takes_it(handler, start):
    """Counts ranges in the bytes as they travel, as it may."""
    if "gzip" in handler.headers["Accept-Encoding"]:
        send(handler, 206, gzip.compress(CONTENT)[start:], encoding="gzip")
    else:
        ranged(handler, start)


def silent(handler, start):
    download.SILENCE = PATIENCE  # for the servers that are asked after this one
    handler.server.closing.wait()


def silent_half_way(handler, start):
    cut_half_way(handler, start)
    silent(handler, start)


def send(handler, status, body, promised=None, encoding="identity"):
    handler.send_response(status)
    handler.send_header("Content-Length", str(promised or len(body)))
    handler.send_header("Content-Encoding", encoding)
    handler.end_headers()
    handler.wfile.write(body)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers["Range"] or "bytes=0-"
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        mirror = self.path.split("/")[1]
        self.server.requests.append((mirror, start))
        answers = self.server.answers[mirror]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self, start)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """Mirrors at /a/, /b/, ..: each gives its answers in turn, and its last one for ever."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests, self.closing = defaultdict(list), [], Event()

    def urls(self, **answers):
        if {silent, silent_half_way} & set(chain(*answers.values())):
            download.SILENCE = 0.8
        self.answers |= {mirror: list(given) for mirror, given in answers.items()}
        return [f"http://127.0.0.1:{self.server_port}/{mirror}/file" for mirror in answers]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "SILENCE", PATIENCE)
    server = Server()
    Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "file"


def part(path):
    return path.with_name("file.part")


def leave_a_part(path, content):
    path.parent.mkdir()
    part(path).write_bytes(content)


def files_beside(path):
    return {file.name for file in path.parent.iterdir()} - {".lock"}


def assert_arrived(path):
    assert path.read_bytes() == CONTENT
    assert files_beside(path) == {"file"}


# -- what arrives in the end -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        ({"a": [ranged]}, [("a", 0)]),
        ({"a": [cut_half_way, ranged]}, [("a", 0), ("a", HALF)]),
        (
            {"a": [cut_half_way, cut_half_way, ranged]},
            [("a", 0), ("a", HALF), ("a", HALF * 3 // 2)],
        ),
        ({"a": [cut_half_way, whole]}, [("a", 0), ("a", HALF)]),
        ({"a": [cut_half_way, not_there], "b": [ranged]}, [("a", 0), ("a", HALF), ("b", HALF)]),
        ({"a": [cut_the_whole_half_way], "b": [ranged]}, [("a", 0), ("a", HALF), ("b", HALF)]),
        ({"a": [not_there], "b": [ranged]}, [("a", 0), ("b", 0)]),
        ({"a": [wrong_bytes], "b": [ranged]}, [("a", 0), ("b", 0)]),
        ({"a": [silent], "b": [ranged]}, [("a", 0), ("b", 0)]),
        ({"a": [cut_half_way, packs_for_who_takes_it]}, [("a", 0), ("a", HALF)]),
        ({"a": [silent_half_way, ranged]}, [("a", 0), ("a", HALF)]),
    ],
)
def test_the_right_file_arrives_and_nothing_is_sent_twice(server, path, answers, requests):
    download.fetch(server.urls(**answers), path, check)
    assert_arrived(path)
    assert server.requests == requests


@pytest.mark.parametrize(
    ("left", "requests"),
    [
        (CONTENT[:100], [("a", 100)]),
        (CONTENT, [("a", len(CONTENT))]),  # all there: the last run ended before it took the name
        (b"?" * 100, [("a", 100), ("a", 0)]),
        (CONTENT[:50] + b"?" + CONTENT[51:], [("a", len(CONTENT)), ("a", 0)]),
        (CONTENT + b"?", [("a", len(CONTENT) + 1), ("a", 0)]),
    ],
    ids=["half", "whole", "other", "damaged", "too long"],
)
def test_what_an_earlier_run_left_is_used_or_put_right(server, path, left, requests):
    leave_a_part(path, left)
    download.fetch(server.urls(a=[ranged]), path, check)
    assert_arrived(path)
    assert server.requests == requests


def test_of_several_that_ask_at_once_one_downloads_and_all_find_it(server, path):
    urls = server.urls(a=[ranged])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download.fetch(urls, path, check), range(4)))
    assert_arrived(path)
    assert server.requests == [("a", 0)]


@pytest.mark.parametrize(
    "answers", [[ranged], [cut_half_way, whole], [wrong_bytes], [cut_half_way, wrong_bytes]]
)
def test_on_windows_too_a_file_is_closed_before_it_is_renamed_or_deleted(
    server, path, answers, monkeypatch
):
    like_windows(monkeypatch)
    download.fetch(server.urls(a=answers, b=[ranged]), path, check)
    assert_arrived(path)


def test_the_bytes_are_on_the_disk_before_the_name_points_at_them(server, path, monkeypatch):
    sizes, sync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: sizes.append(os.fstat(file).st_size) or sync(file)
    )
    download.fetch(server.urls(a=[ranged]), path, check)
    assert sizes == [len(CONTENT)]


# -- when nothing helps ----------------------------------------------------------------------------


def test_each_mirror_is_named_with_what_it_did(server, path):
    urls = server.urls(a=[silent], b=[not_there], c=[wrong_bytes], d=[cut_the_whole_half_way])
    nobody = "http://127.0.0.1:9/file"
    with pytest.raises(ConnectionError) as caught:
        download.fetch([*urls, nobody], path, check)
    a, b, c, d = urls
    message = str(caught.value)
    assert message.startswith(f"file cannot be downloaded ({a}: timed out; {b}: 404 Client Error")
    assert f"; {c}: it is another file; {d}: IncompleteRead({HALF} bytes read" in message
    assert f"; {nobody}: [Errno {errno.ECONNREFUSED}]" in message


def test_what_has_arrived_waits_for_the_next_call(server, path):
    urls = server.urls(a=[cut_half_way, not_there, ranged])
    with pytest.raises(ConnectionError, match="404"):
        download.fetch(urls, path, check)
    assert files_beside(path) == {"file.part"}
    download.fetch(urls, path, check)
    assert_arrived(path)
    assert server.requests == [("a", 0), ("a", HALF), ("a", HALF)]


@pytest.mark.parametrize("answer", [not_there, wrong_bytes, nothing_follows])
def test_nothing_stays_behind_if_nothing_right_arrived(server, path, answer):
    with pytest.raises(ConnectionError):
        download.fetch(server.urls(a=[answer]), path, check)
    assert not files_beside(path)


def test_an_interrupted_download_goes_on(server, path, monkeypatch):
    class Bar(download.tqdm):
        def update(self, n):
            super().update(n)
            if self.n == HALF:
                raise KeyboardInterrupt

    urls = server.urls(a=[ranged])
    with monkeypatch.context() as patch:
        patch.setattr(download, "tqdm", Bar)
        with pytest.raises(KeyboardInterrupt):
            download.fetch(urls, path, check)
    assert files_beside(path) == {"file.part"}
    download.fetch(urls, path, check)
    assert_arrived(path)
    assert server.requests == [("a", 0), ("a", HALF)]


# -- the disk --------------------------------------------------------------------------------------


class FullDisk:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if self.file.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_a_full_disk_loses_nothing_and_is_named_with_the_remedy(server, path, monkeypatch):
    urls = server.urls(a=[ranged], b=[ranged])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *a, open=Path.open: FullDisk(open(*a), HALF))
        with pytest.raises(OSError, match=r"file\.part cannot be written \(.* No space left") as it:
            download.fetch(urls, path, check)
    for remedy in "make room and call again, what has arrived is kept", "DIDIFF_DATA":
        assert remedy in str(it.value)
    held = part(path).stat().st_size
    assert 0 < held <= HALF
    download.fetch(urls, path, check)
    assert_arrived(path)
    assert server.requests == [("a", 0), ("a", held)]  # no other server was blamed


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot be written .*DIDIFF_DATA"):
        download.fetch([], tmp_path / "file" / "file", check)


# -- progress --------------------------------------------------------------------------------------


def test_the_bar_counts_what_was_there_before(server, path, monkeypatch):
    bars = []

    class Bar(download.tqdm):
        def __exit__(self, *_):
            bars.append((self.initial, self.n, self.total))
            super().__exit__(*_)

    monkeypatch.setattr(download, "tqdm", Bar)
    download.fetch(server.urls(a=[cut_half_way, ranged]), path, check)
    total = len(CONTENT)
    assert bars == [(0, HALF, total), (HALF, total, total)]
