"""How scripts end: one sentence, and the status that shells expect."""

import argparse
import os
import pty
import signal
import subprocess
import sys
import time
from importlib import import_module

import numpy as np
import pytest

from hassod_ros import commands
from hassod_ros.cli import VERBS
from hassod_ros.errors import InputError
from hassod_ros.images import write_image

WAITS = """
import sys, time
from hassod_ros.commands import reached, run, stop_between

def work():
    reached("12 of 40 images")
    print("ready", flush=True)
    time.sleep(60)

def steps():
    with stop_between("step") as stopping:
        for step in range(600):
            print("ready" if step == 0 else step, flush=True)
            time.sleep(0.1)
            print("whole", flush=True)
            if stopping():
                reached(f"{step + 1} steps")
                break

raise SystemExit(run("label", {"work": work, "steps": steps}[sys.argv[1]]))
"""


def stopped(kind: str, *signals: int) -> tuple[int, str, str]:
    """Status, output and errors of a script that gets signals."""
    command = [sys.executable, "-c", WAITS, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for number in signals:
            process.send_signal(number)
            time.sleep(0.05)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_are_one_sentence_without_a_traceback(number, status):
    code, _, err = stopped("work", number)
    assert (code, err) == (status, "\nlabel: stopped after 12 of 40 images; the same command goes on\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_step_is_finished_before_the_first_signal_takes_effect(number, status):
    code, out, err = stopped("steps", number)
    assert code == status
    assert out.endswith("whole\n")
    assert "stopping after this step; once more stops at once" in err
    assert err.endswith("steps; the same command goes on\n")


def test_wrong_input_is_one_sentence_and_status_2(capsys):
    def work() -> None:
        raise InputError("photos does not exist; check the path")

    assert commands.run("label", work) == 2
    assert capsys.readouterr().err == "label: photos does not exist; check the path\n"


def test_a_file_name_that_is_not_utf8_is_printed_and_written(tmp_path):
    """Under a locale such as en_US.UTF-8 the stream would raise."""
    code = r"""
import sys
from pathlib import Path
from hassod_ros.commands import run
from hassod_ros.files import write_text
def work():
    print("found g\udce9.jpg")
    write_text(sys.argv[1], "g\udce9.jpg")
sys.exit(run("label", work))
"""
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-c", code, str(tmp_path / "list.txt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "found g\\udce9.jpg\n"), done.stderr
    assert (tmp_path / "list.txt").read_bytes() == b"g\xe9.jpg"  # as a list of pictures is read
    assert str(InputError("g\udce9.jpg does not exist")) == "g\\udce9.jpg does not exist"


def test_a_stop_that_compiled_code_reports_as_its_own_is_a_stop(capsys):
    def work() -> None:
        raise SystemError("returned a result with an exception set") from commands.Terminated()

    assert commands.run("draw", work, after_stop="nothing was kept") == 143
    assert capsys.readouterr().err == "\ndraw: stopped; nothing was kept\n"
    with pytest.raises(SystemError):
        commands.run("draw", lambda: (_ for _ in ()).throw(SystemError("a bug")))


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        commands.run("label", lambda: 1 / 0)


@pytest.mark.parametrize("lines", [1, 10000])
def test_a_reader_that_has_enough_is_no_error(lines):
    code = "import sys; from hassod_ros.commands import run; print('a', flush=True); sys.stdin.read(); sys.exit("
    code += f"run('list', lambda: print('b' * {lines})))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait() == 128 + signal.SIGPIPE


def test_a_full_disk_is_one_sentence(capsys):
    def fill() -> None:
        with open("/dev/full", "w") as file:
            file.write("more")

    assert commands.run("export", fill) == commands.WRONG_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("export: the folder of its output, or that of temporary files, ")
    assert line.endswith(", has no room left (No space left on device); free some space and run again")


def test_a_log_gets_a_bar_now_and_then_and_a_terminal_ten_times_a_second(monkeypatch):
    monkeypatch.delenv("TQDM_MININTERVAL", raising=False)
    code = "import hassod_ros.commands; from tqdm import tqdm; print(tqdm(total=1).mininterval)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == 10
    leader, terminal = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=terminal, text=True, check=True)
    os.close(terminal)
    os.close(leader)
    assert float(done.stdout) == 0.1


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (commands.number(0, 1), "2", "'2' is not a number from 0 to 1"),
        (commands.number(0, 1), "nan", "'nan' is not a number from 0 to 1"),
        (commands.number(0), "inf", "'inf' is not a number of at least 0"),
        (commands.number(), "many", "'many' is not a number"),
        (commands.whole_number(1), "0", "'0' is not a whole number of at least 1"),
        (commands.whole_number(1), "2.5", "'2.5' is not a whole number of at least 1"),
    ],
)
def test_a_number_out_of_range_is_told_its_range(kind, text, says):
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{says}$"):
        kind(text)


def test_numbers_in_range_are_read():
    assert (commands.number(0, 1)("1"), commands.whole_number(2)("2")) == (1.0, 2)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("extract", "photos --out frames --neighbours 0"),
        ("extract", "photos --out frames --count 0"),
        ("extract", "photos --out frames --rate nan"),
        ("gate", "--running a --candidate b frames --max-frames 0"),
        ("gate", "--running a --candidate b frames --least nan"),
        ("registry", "prune models --keep -1"),
        ("rollout", "--registry r --version 1 --nodes /n --canary 0"),
        ("rollout", "--registry r --version 1 --nodes /n --timeout nan"),
        ("pseudo_label", "--images photos --out labels.json --shard 0"),
        ("visualise", "--images photos --out drawn --count -1"),
        ("evaluate", "--annotations a --predictions p --min-area nan"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_before_the_work(verb, words, capsys):
    with pytest.raises(SystemExit) as stop:
        import_module(VERBS[verb].module).main(words.split())
    assert stop.value.code == 2
    assert "number" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("evaluate", "--annotations a --predictions p --report OUT"),
        ("evaluate", "--task saliency --annotations a --predictions p --report OUT"),
        ("gate", "--running a --candidate b frames --out OUT"),
        ("fit_evidence", "a --data d --out OUT/e.json"),
        ("fit_evidence", "a --data d --out e.json --model-out OUT/m.onnx"),
        ("to_onnx", "a --images photos --out OUT/m.onnx"),
        ("quantize", "a --images photos --annotations a --annotated-images photos --out OUT/m.onnx"),
        ("features_to_onnx", "tiny --images photos --size 64x64 --out OUT/m.onnx"),
        ("add_features", "a --images photos --out OUT/m.onnx"),
        ("average", "--checkpoints a b --out OUT/m.pth"),
        ("learn_reference", "photos --out OUT/r.npz"),
        ("inspect", "photos --reference r.npz --report OUT"),
        ("retrain", "photos --registry OUT"),
        ("retrain", "photos --registry models --work OUT"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(verb, words, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    words = [word.replace("OUT", str(tmp_path / "file" / "out")) for word in words.split()]
    assert import_module(VERBS[verb].module).main(words) == 2
    assert f"cannot write to {tmp_path}/file" in capsys.readouterr().err


def test_a_chain_whose_folder_cannot_be_made_ends_with_a_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    words = ["--photos", str(tmp_path), "--machine", "cpu", "--until", "pool", "--out", str(tmp_path / "file")]
    write_image(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    assert import_module(VERBS["default_model"].module).main(words) == 2
    assert f"cannot write to {tmp_path}/file: " in capsys.readouterr().err
