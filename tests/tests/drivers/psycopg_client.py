"""Eight clients on three servers with psycopg 3, statements prepared at once, and two backends for one client."""
import json, os, threading
import psycopg

WHO = "SELECT pg_backend_pid(), %s::int"
clients = [psycopg.connect(os.environ["POOL_URL"], prepare_threshold=0) for _ in range(8)]
seen, faults = set(), []


def load(number):
    try:
        for turn in range(60):
            wanted = number * 1000 + turn
            pid, got = clients[number].execute(WHO, (wanted,)).fetchone()
            if got != wanted:
                raise AssertionError("an answer meant for somebody else")
            seen.add(pid)
            clients[number].commit()
    except BaseException as fault:
        faults.append(repr(fault))


def backend(client):
    return client.execute(WHO, (0,)).fetchone()[0]


threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
if faults:
    raise SystemExit("; ".join(faults))
# Three others take every server (psycopg opens a transaction by itself); the one that has the first's keeps it, so
# the first must move.
first = backend(clients[0])
clients[0].commit()
held = [backend(other) for other in clients[1:4]]
[other.commit() for other, pid in zip(clients[1:4], held) if pid != first]
second = backend(clients[0])
[client.close() for client in clients]
print(json.dumps({"all": len(seen | {first, second, *held}), "moved": first != second}))
