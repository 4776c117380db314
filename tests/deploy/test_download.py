"""Against a real server on this machine that cuts, changes and replaces files."""

import hashlib
import json
import re
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hassod_ros.deploy.download import RECORD, fetch, take_over
from hassod_ros.errors import InputError

CONTENT = bytes(range(256)) * 20_000  # 5 MB
SHA = hashlib.sha256(CONTENT).hexdigest()


class Files(BaseHTTPRequestHandler):
    """Answers by path; `server.cuts` transfers are broken off after 2 MB."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        if self.path == "/page":
            return self._send(b"<!DOCTYPE html><html>moved</html>", kind="text/html; charset=utf-8")
        if self.path == "/disguised":
            return self._send(b"\n<html>sign in</html>")
        if self.path == "/missing":
            return self.send_error(404, "Not Found")
        content = CONTENT[::-1] if self.path == "/changed" else CONTENT
        start = 0
        if (found := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) and self.path != "/no-ranges":
            start = int(found[1])
            if start >= len(content):
                return self.send_error(416, "Range Not Satisfiable")
        return self._send(content[start:], status=206 if start else 200)

    def _send(self, body, *, status=200, kind="application/octet-stream"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(self.server.length or len(body)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            self.wfile.write(body[:2_000_000])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.asked, server.cuts, server.length = [], 0, 0
    server.handle_error = lambda *_: None  # connections that it broke off itself
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_good_file_arrives_with_progress_and_its_fingerprint_is_recorded(server, tmp_path):
    lines = []
    target = tmp_path / "new" / "weights.pth"
    assert fetch(f"{server.url}/good", target, report=lines.append) == SHA
    assert target.read_bytes() == CONTENT
    assert lines[-1] == "5 of 5 MB (100 %)"
    assert json.loads((target.parent / RECORD).read_text()) == {"weights.pth": SHA}
    assert sorted(path.name for path in target.parent.iterdir()) == [RECORD, "weights.pth"]
    assert fetch(f"{server.url}/good", target, report=lines.append) == SHA
    assert len(server.asked) == 1  # not fetched again


@pytest.mark.parametrize("path", ["good", "no-ranges"])
def test_a_cut_transfer_goes_on_where_it_ended(server, tmp_path, path):
    server.cuts = 1
    assert fetch(f"{server.url}/{path}", tmp_path / "weights.pth", report=lambda _: None) == SHA
    assert server.asked[0] is None
    assert server.asked[1].startswith("bytes=")


def test_a_transfer_that_keeps_being_cut_says_so_and_the_next_run_goes_on(server, tmp_path):
    server.cuts = 10  # the server sends all of it each time, and breaks it off each time
    target = tmp_path / "weights.pth"
    with pytest.raises(InputError, match=r"was cut .* run the same command again"):
        fetch(f"{server.url}/no-ranges", target, report=lambda _: None)
    assert not target.exists()
    server.cuts = 0
    assert fetch(f"{server.url}/good", target, report=lambda _: None) == SHA


@pytest.mark.parametrize("url", ["weights.pth", "http://127.0.0.1/my weights", "http://127.0.0.1:many/weights"])
def test_what_is_no_address_is_said(tmp_path, url):
    with pytest.raises(InputError, match=r"is no address .*; give one such as"):
        fetch(url, tmp_path / "weights.pth")


def test_a_length_that_is_no_number_is_none(server, tmp_path):
    server.length = "many"
    assert fetch(f"{server.url}/good", tmp_path / "weights.pth") == SHA


def test_what_cannot_be_used_is_put_aside_and_does_not_keep_a_good_file_out(server, tmp_path):
    def check(path):
        if path.read_bytes() != CONTENT:
            raise InputError("no weights")

    target = tmp_path / "weights.pth"
    for earlier in (False, True):  # as fetched just now, or kept by a version that did not look
        if earlier:
            target.write_bytes(CONTENT[::-1])
            (tmp_path / RECORD).write_text(json.dumps({"weights.pth": hashlib.sha256(CONTENT[::-1]).hexdigest()}))
        with pytest.raises(
            InputError, match=r"sent cannot be used and lies in .*weights\.pth\.refused: no weights; run"
        ):
            fetch(f"{server.url}/changed", target, check=check)
        assert not target.exists()
        assert (tmp_path / "weights.pth.refused").read_bytes() == CONTENT[::-1]
        assert fetch(f"{server.url}/good", target, check=check) == SHA
    other = tmp_path / "by_browser"
    other.write_bytes(b"{}")
    with pytest.raises(InputError, match="no weights"):
        take_over(other, tmp_path / "new.pth", check=check)
    assert "new.pth" not in json.loads((tmp_path / RECORD).read_text())


def test_a_changed_file_is_refused_and_kept_aside(server, tmp_path):
    target = tmp_path / "weights.pth"
    fetch(f"{server.url}/good", target, report=lambda _: None)
    target.unlink()
    with pytest.raises(InputError, match=f"expected is {SHA}: it was changed or damaged"):
        fetch(f"{server.url}/changed", target, report=lambda _: None)
    assert not target.exists()
    assert fetch(f"{server.url}/good", target, report=lambda _: None) == SHA
    # A file that was damaged on disk is noticed too, and --sha256 insists.
    target.write_bytes(b"damaged")
    with pytest.raises(InputError, match="changed or damaged"):
        fetch(f"{server.url}/good", target, report=lambda _: None)
    with pytest.raises(InputError, match="expected is 0000"):
        fetch(f"{server.url}/good", target, expected="0" * 64, report=lambda _: None)


@pytest.mark.parametrize("path", ["page", "disguised"])
def test_a_web_page_is_no_file_of_weights(server, tmp_path, path):
    with pytest.raises(InputError, match="is a web page, not a file of weights"):
        fetch(f"{server.url}/{path}", tmp_path / "weights.pth", report=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_seen_before_anything_is_written(server, tmp_path):
    server.length = shutil.disk_usage(tmp_path).total * 2
    with pytest.raises(InputError, match=r"MB free, .* needs \d+; free some"):
        fetch(f"{server.url}/good", tmp_path / "weights.pth", report=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_meanwhile_keeps_what_there_is(server, tmp_path, monkeypatch):
    # /dev/full is the real thing: every write fails with "No space left on device".
    (tmp_path / "weights.pth.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left on device"):
        fetch(f"{server.url}/no-ranges", tmp_path / "weights.pth", report=lambda _: None)
    assert not (tmp_path / "weights.pth").exists()


def test_no_such_file_and_no_network(server, tmp_path):
    with pytest.raises(InputError, match="answers 404 Not Found"):
        fetch(f"{server.url}/missing", tmp_path / "weights.pth")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"cannot be reached .* check the network"):
        fetch(f"http://127.0.0.1:{port}/x", tmp_path / "weights.pth")


def test_a_file_fetched_by_hand_is_held_to_the_same_fingerprint(tmp_path):
    mine = tmp_path / "download.pth"
    mine.write_bytes(CONTENT)
    target = tmp_path / "cache" / "weights.pth"
    assert take_over(mine, target) == SHA
    mine.write_bytes(b"other")
    with pytest.raises(InputError, match="expected is"):
        take_over(mine, target)
    assert target.read_bytes() == CONTENT
    with pytest.raises(InputError, match="does not exist"):
        take_over(tmp_path / "none", target)
