"""Progress bars of processes that are forked and killed."""

import subprocess
import sys

KILLED = """
import os, signal
from pti_pipeline.progress import tqdm
list(tqdm([1]))
if not (child := os.fork()):
    tqdm.get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
list(tqdm([1]))
if not (child := os.fork()):
    list(tqdm([1]))
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_that_is_killed_in_its_bar_stops_no_other():
    words = [sys.executable, "-c", KILLED]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7\n"
