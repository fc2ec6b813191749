// The bot's one pool. Pointing DATABASE_URL at Poolwright instead of PostgreSQL is all that changes.
import pg from "pg";

export const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: Number(process.env.POOL_MAX ?? 20),
});

pool.on("error", (error) => console.error("idle connection lost:", error.message));

/** Runs `work` on one connection and gives the connection back, whatever happens. */
export async function withClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  try {
    return await work(client);
  } finally {
    client.release();
  }
}
