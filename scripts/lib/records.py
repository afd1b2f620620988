#!/usr/bin/env python3
"""A writer whose traces tell when an image was taken, and the reader of those traces.

write A B LOG   Until SIGTERM or its parent's end: record n into A, fsync, record n into B, fsync; and files made, renamed and
                removed on both without fsync, so that the journals are never idle. LOG gets a line a record, `n began
                acknowledged` in unix nanoseconds; it must not be on A or B, whose freeze stops it as it stops everybody.
count DIR       The records in DIR, complete and in order from 1 on. Anything else in the file is an error.
bounds LOG SET  Two numbers, for SET, stillpoint's JSON of a set: the last record acknowledged before the request was sent, and
                the last begun before the response was read.
"""

import calendar
import hashlib
import json
import os
import signal
import sys
import threading
import time

SIZE = 128


def record(number):
    head = b"%012d " % number
    return head + hashlib.sha512(head).hexdigest().encode()[: SIZE - len(head) - 1] + b"\n"


def append(folder):
    return os.open(folder + "/records", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def churn(folder, stop):
    os.makedirs(folder + "/churn", exist_ok=True)
    number = 0
    while not stop.is_set():
        name = f"{folder}/churn/{number % 200}"
        with open(name + ".new", "wb") as file:
            file.write(b"x" * (number % 5000))
        os.rename(name + ".new", name)
        if number % 3 == 0:
            os.unlink(name)
        number += 1
        time.sleep(0.001)


def write(a, b, log):
    stop, parent = threading.Event(), os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for folder in (a, b):
        threading.Thread(target=churn, args=(folder, stop), daemon=True).start()
    first, second = append(a), append(b)
    with open(log, "w", buffering=1) as lines:
        number = 0
        while not stop.is_set() and os.getppid() == parent:
            number += 1
            began = time.time_ns()
            for file in (first, second):
                os.write(file, record(number))
                os.fsync(file)
            lines.write(f"{number} {began} {time.time_ns()}\n")


def counted(folder):
    """How many records there are. ValueError for anything else in the file."""
    with open(folder + "/records", "rb") as file:
        data = file.read()
    number = len(data) // SIZE
    for n in range(1, number + 1):
        if data[(n - 1) * SIZE : n * SIZE] != record(n):
            raise ValueError(f"record {n} of {number} is not what was written")
    if len(data) % SIZE:
        raise ValueError(f"{len(data) % SIZE} bytes after record {number}")
    return number


def count(folder):
    try:
        print(counted(folder))
    except ValueError as why:
        sys.exit(str(why))


def unix_ns(text):
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 10**9 + int(fraction.ljust(9, "0"))


def between(log, record):
    """The last record acknowledged before the request, and the last begun before the response."""
    with open(record) as file:
        times = json.load(file)["times"]
    requested, responded = unix_ns(times["requested"]), unix_ns(times["responded"])
    acknowledged = begun = 0
    with open(log) as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # it is being written
            number, began, acked = map(int, line.split())
            if acked < requested:
                acknowledged = number
            if began < responded:
                begun = number
    return acknowledged, begun


def bounds(log, record):
    print(*between(log, record))


if __name__ == "__main__":
    {"write": write, "count": count, "bounds": bounds}[sys.argv[1]](*sys.argv[2:])
