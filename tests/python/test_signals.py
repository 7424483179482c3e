"""Signals, and logs that nobody takes."""

import signal
import subprocess
import time

import pytest

from program import TALK, binary


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupt(name, pbmc_path, tmp_path):
    """Ctrl-C, or a batch system's end: a line, status 130 or 1, nothing left but the journal."""
    started = subprocess.Popen([str(binary()), "run", str(pbmc_path), "-o", str(tmp_path / "o.zarr"), "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    time.sleep(0.7)
    started.send_signal(getattr(signal, name))
    _, err = started.communicate(timeout=120)
    if started.returncode == 0:
        pytest.skip("the run was over before the signal")
    assert started.returncode in (1, 130), (started.returncode, err)
    assert not any(word in err for word in TALK)
    assert [p.name for p in tmp_path.iterdir()] in ([], ["o.zarr.journal"])


def test_nohup(pbmc_path, tmp_path):
    """What is told to outlive its terminal does."""
    words = [str(binary()), "run", str(pbmc_path), "-o", str(tmp_path / "o.zarr"), "--threads", "1", "--quiet"]
    started = subprocess.Popen(words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    time.sleep(0.3)
    started.send_signal(signal.SIGHUP)
    assert started.wait(timeout=120) == 0


def test_a_full_log_stops_no_run(small_path, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(binary()), "convert", str(small_path), str(tmp_path / "o.zarr")], stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.returncode == 0 and (tmp_path / "o.zarr").is_dir()
