// The same operations repaired: the `after` statements of workload.toml. What is not here stays as it was.
import type { ClientBase } from "pg";
import type { Result } from "./queries-before.js";

export const leaderboard = (db: ClientBase, guild: string) =>
  db.query("SELECT discord_id, username, rating FROM users WHERE guild_id = $1 ORDER BY rating DESC LIMIT 10", [guild]);

/** `after` is the last id of the page before. */
export const matchArchivePage = (db: ClientBase, after: string) =>
  db.query("SELECT id, discord_id, result, played_at FROM matches WHERE id > $1 ORDER BY id LIMIT 20", [after]);

export const recordTournament = (db: ClientBase, guild: string, results: Result[]) =>
  db.query(
    "INSERT INTO matches (discord_id, opponent_id, guild_id, result, rating_change, played_at) SELECT d, o, $3, r, c, now() FROM unnest($1::bigint[], $2::bigint[], $4::text[], $5::integer[]) AS t(d, o, r, c)",
    [results.map((r) => r.user), results.map((r) => r.opponent), guild, results.map((r) => r.outcome), results.map((r) => r.change)],
  );

export async function rivals(db: ClientBase, user: string) {
  const found = await db.query("SELECT opponent_id FROM matches WHERE discord_id = $1 ORDER BY played_at DESC LIMIT 10", [user]);
  const players = await db.query("SELECT username, rating FROM users WHERE discord_id = ANY($1)", [found.rows.map((row) => row.opponent_id)]);
  return players.rows;
}

/** Read once for a message; the caller keeps it. */
export async function message(db: ClientBase, guild: string) {
  const settings = await db.query("SELECT prefix, locale, settings FROM guild_settings WHERE guild_id = $1", [guild]);
  return settings.rows[0];
}
