// Eight clients on three servers: statements with names, transactions, and two backends for one client.
const { Client } = require("pg");

const who = (n) => ({ name: "who", text: "SELECT pg_backend_pid() AS pid, $1::int AS n", values: [n] });

async function load(client, number) {
  const backends = new Set();
  for (let turn = 0; turn < 60; turn++) {
    const wanted = number * 1000 + turn;
    await client.query("BEGIN");
    const { rows } = await client.query(who(wanted));
    if (rows[0].n !== wanted) throw new Error("an answer meant for somebody else");
    backends.add(rows[0].pid);
    await client.query("COMMIT");
  }
  return backends;
}

async function backend(client) {
  return (await client.query(who(0))).rows[0].pid;
}

async function main() {
  const clients = [...Array(8).keys()].map(() => new Client({ connectionString: process.env.POOL_URL }));
  await Promise.all(clients.map((client) => client.connect()));
  const seen = await Promise.all(clients.map(load));
  // Three others take every server; the one that has the first's keeps it, so the first must move.
  const first = await backend(clients[0]);
  for (const other of clients.slice(1, 4)) await other.query("BEGIN");
  const held = [];
  for (const other of clients.slice(1, 4)) held.push(await backend(other));
  for (const [at, other] of clients.slice(1, 4).entries()) if (held[at] !== first) await other.query("COMMIT");
  const second = await backend(clients[0]);
  await clients[1 + held.indexOf(first)].query("COMMIT");
  await Promise.all(clients.map((client) => client.end()));
  const all = new Set([...seen.flatMap((one) => [...one]), ...held, first, second]);
  console.log(JSON.stringify({ all: all.size, moved: first !== second }));
}

main();
