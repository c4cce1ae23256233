"""The reference of `cycle` for an interpreted language: the same calls in python3.

cycle.py DIRECTORY BATCHES CYCLES: prints the nanoseconds of one cycle for each batch.
"""

import fcntl
import json
import os
import sys
import time

directory, batches, cycles = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
path = os.path.join(directory, "exclusive_python.lock")
safe = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def cycle():
    try:
        fd = os.open(path, safe)
    except FileNotFoundError:
        fd = os.open(path, safe | os.O_CREAT | os.O_EXCL, 0o644)
    ours = os.fstat(fd)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.lstat(path).st_ino != ours.st_ino:
        sys.exit("another file")
    acquired = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"version": 1, "host": "localhost", "acquired": acquired, "mode": "exclusive"}
    written = os.pwrite(fd, f"{os.getpid()}\n{json.dumps(record)}\n".encode(), 0)
    os.ftruncate(fd, written)
    if os.lstat(path).st_ino == ours.st_ino:
        os.unlink(path)
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


for batch in range(-1, batches):
    begun = time.monotonic_ns()
    for _ in range(cycles):
        cycle()
    if batch >= 0:
        print((time.monotonic_ns() - begun) / cycles)
