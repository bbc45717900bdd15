"""Groups of real processes: one order, and who is missing is named."""

import random
import re
import subprocess
import sys
import time
from datetime import timedelta
from socket import AF_INET6, create_server

import pytest

pytest.importorskip("torch", reason="groups of processes need torch")

import torch.distributed as dist

from backchannel.parts.group import _limit, connect, current
from backchannel.testing.processes import run_processes

WORKER = """
import sys, torch
from backchannel.parts.group import connect
address, rank, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
group = connect(address, rank, 3, limit=100.0)
later = [group.submit(group.all, torch.tensor([10 * rank + k])) for k in range(3)]
first = group.submit(group.broadcast, torch.tensor(rank))
print([each.result().flatten().tolist() for each in later], int(first.result()))
if what == "die" and rank == 2:
    sys.exit()
try:
    group.submit(group.all, torch.tensor([rank])).result()
    group.same("the colour", rank // 2)
except (RuntimeError, ValueError) as error:
    print(error)
group.close()
"""


def free_address():
    """Below the ports that the system gives to connections: nobody takes it by and by."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        try:
            with create_server(("127.0.0.1", port)):
                return f"127.0.0.1:{port}"
        except OSError:
            continue


def _run(folder, what, code=WORKER):
    address = free_address()
    return run_processes(code, lambda rank: [address, str(rank), what], 3, folder, 240.0)


def test_all_have_all_in_one_order_and_differences_are_named(tmp_path):
    wrote = _run(tmp_path, "live")
    for one in wrote:
        assert one.splitlines()[0] == "[[0, 10, 20], [1, 11, 21], [2, 12, 22]] 0", one
        assert one.splitlines()[1] == "the colour: process 2 differs from process 0"


def test_who_is_missing_is_named(tmp_path):
    wrote = _run(tmp_path, "die")
    for one in wrote[:2]:
        assert re.search(r"exchange 5 failed: process 2 did not come", one), one


def test_a_group_that_cannot_be():
    for wrong in ("here", ":29500", "here:port", "here:0", "here:65536"):
        with pytest.raises(ValueError, match=f"an address is host:port, not '{wrong}'"):
            connect(wrong, 0, 1)
    for wrong in ("::1:29500", "[host]:29500", "[::1:29500"):
        with pytest.raises(ValueError, match=r"the host is in brackets if it is IPv6, as in \[::1\]:29500, not "):
            connect(wrong, 0, 1)
    with pytest.raises(ValueError, match="rank must lie in 0 to 1, not 2"):
        connect("127.0.0.1:1", 2, 2)
    with pytest.raises(ValueError, match="limit must be positive, not nan"):
        connect("127.0.0.1:1", 0, 1, limit=float("nan"))
    with pytest.raises(RuntimeError, match=r"process 0 did not come to 127\.0\.0\.1:\d+ within 1 seconds"):
        connect(free_address(), 1, 2, limit=1.0)
    with pytest.raises(RuntimeError, match="process 1 did not come"):
        connect(free_address(), 0, 2, limit=1.0)
    with create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"the port of 127.0.0.1:{port} is in use"):
            connect(f"127.0.0.1:{port}", 0, 1, limit=1.0)
    assert not dist.is_initialized()
    with pytest.raises(RuntimeError, match=r"there is no process group: call init_process_group"):
        current()


def test_waits_end_also_where_nobody_answers():
    with create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        began = time.monotonic()
        with pytest.raises(RuntimeError, match=r"process 0 did not come to .* within 1 seconds"):
            connect(f"127.0.0.1:{silent.getsockname()[1]}", 1, 2, limit=1.0)
        assert time.monotonic() - began < 20


FROZEN = """
import os, signal, sys, torch
from backchannel.parts.group import connect
rank = int(sys.argv[2])
group = connect(sys.argv[1], rank, 3, limit=3.0)
group.submit(group.all, torch.tensor([rank])).result()
print("begun", flush=True)
if rank == 0:  # who keeps the store
    os.kill(os.getpid(), signal.SIGSTOP)
try:
    group.submit(group.all, torch.tensor([rank])).result()
except RuntimeError as error:
    print(error, flush=True)
os._exit(0)
"""


def test_a_frozen_store_is_not_waited_for():
    address = free_address()
    commands = [[sys.executable, "-c", FROZEN, address, str(rank)] for rank in range(3)]
    processes = [
        subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for each in commands
    ]
    try:
        for process in processes[1:]:
            wrote = process.communicate(timeout=60)[0]
            assert "exchange 2 failed: " in wrote, wrote
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_one_process_is_a_group():
    import torch

    group = connect(free_address(), 0, 1)
    assert group.submit(group.all, torch.tensor([7])).result().tolist() == [[7]]
    group.same("anything", 3)
    group.close()


def test_an_ipv6_address_is_in_brackets():
    try:
        with create_server(("::1", 0), family=AF_INET6) as server:
            port = server.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    group = connect(f"[::1]:{port}", 0, 1, limit=10.0)
    group.same("anything", 3)
    group.close()


def test_a_group_of_the_programs_processes_waits_as_long_as_theirs():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=7))
    try:
        assert _limit(current()._processes) == timedelta(seconds=7)
    finally:
        dist.destroy_process_group()


BESIDE = """
import sys, time, torch
import torch.distributed as dist
from backchannel.parts.group import current
dist.init_process_group("gloo", "tcp://" + sys.argv[1], rank=int(sys.argv[2]), world_size=3)
group = current()
rank = int(sys.argv[2])
def late(x):
    time.sleep(0.3 * (rank == 0))
    return group.all(x)
found = []
for k in range(5):
    posted = group.submit(late, torch.tensor([rank + k]))
    mine = torch.tensor([1])
    dist.all_reduce(mine)
    found.append((int(mine), posted.result().flatten().tolist()))
print(found)
group.close()
"""


def test_collectives_of_the_program_do_not_meet_those_of_the_group(tmp_path):
    wrote = _run(tmp_path, "live", BESIDE)
    assert {one.strip() for one in wrote} == {str([(3, [k, 1 + k, 2 + k]) for k in range(5)])}
