"""Eight clients on three servers with asyncpg, which prepares everything; prints the most backends one client saw."""
import asyncio, os
import asyncpg


async def client(number):
    connection = await asyncpg.connect(os.environ["POOL_URL"])
    seen = set()
    for turn in range(60):
        wanted = number * 1000 + turn
        async with connection.transaction():
            row = await connection.fetchrow("SELECT pg_backend_pid() AS pid, $1::int AS n", wanted)
        assert row["n"] == wanted, "an answer meant for somebody else"
        seen.add(row["pid"])
    await connection.close()
    return len(seen)


async def main():
    print(max(await asyncio.gather(*(client(number) for number in range(8)))))


asyncio.run(main())
