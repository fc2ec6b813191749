"""The console by psycopg 3: it opens a transaction by itself, and prepares."""
import json, os
import psycopg

with psycopg.connect(os.environ["CONSOLE_URL"], prepare_threshold=0) as client:
    first = client.execute("SHOW POOLS").fetchone()
    pools = client.execute("SHOW POOLS")
    names = [column.name for column in pools.description]
    pool = dict(zip(names, pools.fetchone()))
    with client.cursor(binary=True) as cursor:
        binary = cursor.execute("SHOW POOLS").fetchone()
    client.commit()
    version = client.execute("SHOW VERSION").fetchone()[0]
    client.rollback()
    refused = ""
    try:
        client.execute("SELECT * FROM users")
    except psycopg.Error as error:
        refused = error.sqlstate
    client.rollback()
if first != binary:
    raise SystemExit(f"{first} by text, {binary} by binary")
told = {"pool": pool["database"], "max": pool["pool_size"], "stats": pool["database"]}
print(json.dumps({**told, "version": version.split(" ")[0], "refused": refused}))
