// The queries as the team has them, one function for each operation of workload.toml. Ids are strings: a snowflake
// does not fit into a JavaScript number.
import type { ClientBase } from "pg";

export interface Result { user: string; opponent: string; outcome: string; change: number }

export const profile = (db: ClientBase, user: string) =>
  db.query("SELECT id, username, rating, games FROM users WHERE discord_id = $1", [user]);

export const matchHistory = (db: ClientBase, user: string) =>
  db.query("SELECT id, opponent_id, result, rating_change, played_at FROM matches WHERE discord_id = $1 ORDER BY played_at DESC", [user]);

export const leaderboard = (db: ClientBase) =>
  db.query("SELECT discord_id, username, rating FROM users ORDER BY rating DESC");

export const guildMembers = (db: ClientBase, guild: string) =>
  db.query("SELECT discord_id, username FROM users WHERE guild_id = $1 ORDER BY username LIMIT 25", [guild]);

export async function matchArchive(db: ClientBase, offset: number, pages = 3) {
  for (let page = 0; page < pages; page++) {
    await db.query("SELECT id, discord_id, result, played_at FROM matches ORDER BY id LIMIT 20 OFFSET $1", [offset + page * 20]);
  }
}

export async function recordTournament(db: ClientBase, guild: string, results: Result[]) {
  for (const r of results) {
    await db.query(
      "INSERT INTO matches (discord_id, opponent_id, guild_id, result, rating_change, played_at) VALUES ($1, $2, $3, $4, $5, now())",
      [r.user, r.opponent, guild, r.outcome, r.change],
    );
  }
}

export async function rivals(db: ClientBase, user: string) {
  const found = await db.query("SELECT opponent_id FROM matches WHERE discord_id = $1 ORDER BY played_at DESC LIMIT 10", [user]);
  const players = [];
  for (const row of found.rows) {
    const player = await db.query("SELECT username, rating FROM users WHERE discord_id = $1", [row.opponent_id]);
    players.push(...player.rows);
  }
  return players;
}

export async function message(db: ClientBase, guild: string, reads = 3) {
  let settings;
  for (let read = 0; read < reads; read++) {
    settings = await db.query("SELECT prefix, locale, settings FROM guild_settings WHERE guild_id = $1", [guild]);
  }
  return settings?.rows[0];
}

export const activityChart = (db: ClientBase, guild: string) =>
  db.query("SELECT day, messages, commands, members FROM server_stats WHERE guild_id = $1 ORDER BY day DESC LIMIT 30", [guild]);

export const seen = (db: ClientBase, user: string) =>
  db.query("UPDATE users SET last_seen = now(), games = games + 1 WHERE discord_id = $1", [user]);
