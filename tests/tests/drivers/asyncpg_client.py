"""Eight clients on three servers with asyncpg, which prepares everything, and two backends for one client."""
import asyncio, json, os
import asyncpg

WHO = "SELECT pg_backend_pid() AS pid, $1::int AS n"


async def load(client, number, seen):
    for turn in range(60):
        wanted = number * 1000 + turn
        async with client.transaction():
            row = await client.fetchrow(WHO, wanted)
        assert row["n"] == wanted, "an answer meant for somebody else"
        seen.add(row["pid"])


async def backend(client):
    return await client.fetchval(WHO, 0)


async def main():
    clients = [await asyncpg.connect(os.environ["POOL_URL"]) for _ in range(8)]
    seen = set()
    await asyncio.gather(*(load(client, number, seen) for number, client in enumerate(clients)))
    # Three others take every server; the one that has the first's keeps it, so the first must move.
    first = await backend(clients[0])
    transactions = [other.transaction() for other in clients[1:4]]
    for transaction in transactions:
        await transaction.start()
    held = [await backend(other) for other in clients[1:4]]
    for transaction, pid in zip(transactions, held):
        if pid != first:
            await transaction.rollback()
    second = await backend(clients[0])
    await transactions[held.index(first)].rollback()
    for client in clients:
        await client.close()
    print(json.dumps({"all": len(seen | {first, second, *held}), "moved": first != second}))


asyncio.run(main())
