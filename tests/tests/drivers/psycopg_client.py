"""Eight clients on three servers with psycopg 3, statements prepared at once; prints the most backends one client saw."""
import os, threading
import psycopg

seen = [set() for _ in range(8)]
faults = []


def client(number):
    try:
        with psycopg.connect(os.environ["POOL_URL"], prepare_threshold=0) as connection:
            for turn in range(60):
                wanted = number * 1000 + turn
                pid, got = connection.execute("SELECT pg_backend_pid(), %s::int", (wanted,)).fetchone()
                if got != wanted:
                    raise AssertionError("an answer meant for somebody else")
                seen[number].add(pid)
                connection.commit()
    except BaseException as fault:
        faults.append(repr(fault))


threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
if faults:
    raise SystemExit("; ".join(faults))
print(max(map(len, seen)))
