// The console by node-postgres: simple queries, and the extended protocol with a name.
const { Client } = require("pg");

async function main() {
  const client = new Client({ connectionString: process.env.CONSOLE_URL });
  await client.connect();
  const simple = await client.query("SHOW POOLS");
  const named = { name: "stats", text: "SHOW STATS" };
  await client.query(named);
  const extended = await client.query(named);
  const values = await client.query({ text: "SHOW VERSION", values: [], rowMode: "array" });
  let refused = "";
  await client.query("SELECT * FROM users").catch((error) => (refused = error.code));
  await client.end();
  console.log(
    JSON.stringify({
      pool: simple.rows[0].database,
      max: simple.rows[0].pool_size,
      stats: extended.rows[0].database,
      version: values.rows[0][0].split(" ")[0],
      refused,
    }),
  );
}

main();
