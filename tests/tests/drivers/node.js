// Eight clients on three servers: statements with names, transactions, and different backends for one client.
const { Client } = require("pg");
async function client(number) {
  const client = new Client({ connectionString: process.env.POOL_URL });
  await client.connect();
  const backends = new Set();
  for (let turn = 0; turn < 60; turn++) {
    await client.query("BEGIN");
    const { rows } = await client.query({ name: "who", text: "SELECT pg_backend_pid() AS pid, $1::int AS n", values: [number * 1000 + turn] });
    if (rows[0].n !== number * 1000 + turn) throw new Error("an answer meant for somebody else");
    backends.add(rows[0].pid);
    await client.query("COMMIT");
  }
  await client.end();
  return backends.size;
}
Promise.all([...Array(8).keys()].map(client)).then((sizes) => console.log(Math.max(...sizes)));
