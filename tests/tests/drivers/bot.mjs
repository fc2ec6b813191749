// Every operation of the example bot, by its own code (`BOT` is the folder it was compiled in) and on its own pool, as
// the team has it or repaired (`SIDE`). Prints what the operations returned, so that both sides can be compared.
const at = (name) => import(`file://${process.env.BOT}/dist/${name}.js`);
const { pool, withClient } = await at("pool-manager");
const before = await at("queries-before");
const bot = process.env.SIDE === "after" ? { ...before, ...(await at("queries-after")) } : before;

const user = (n) => (200000000000000000n + BigInt(n) * 4194304n).toString();
const guild = (n) => (300000000000000000n + BigInt(n) * 4194304n).toString();
const results = Array.from({ length: 10 }, (_, n) => ({ user: user(n), opponent: user(n + 10), outcome: "win", change: n }));

async function archive(db, pages = 3) {
  if (!bot.matchArchivePage) return bot.matchArchive(db, 0, pages);
  for (let page = 0, last = "0"; page < pages; page++) {
    const { rows } = await bot.matchArchivePage(db, last);
    last = rows[rows.length - 1].id;
  }
}

/** One turn of one user of the bot; each operation on a connection of its own, as in the bot. */
async function turn(n) {
  const one = (result) => result.rows[0];
  return {
    profile: one(await withClient((db) => bot.profile(db, user(n)))).username,
    history: (await withClient((db) => bot.matchHistory(db, user(n)))).rows.length,
    leaders: (await withClient((db) => bot.leaderboard(db, guild(1)))).rows.length > 0,
    members: (await withClient((db) => bot.guildMembers(db, guild(n)))).rows.length,
    archive: await withClient((db) => archive(db)),
    rivals: (await withClient((db) => bot.rivals(db, user(n)))).map((player) => player.username).sort(),
    prefix: (await withClient((db) => bot.message(db, guild(n)))).prefix,
    days: (await withClient((db) => bot.activityChart(db, guild(n)))).rows.length,
    seen: (await withClient((db) => bot.seen(db, user(n)))).rowCount,
  };
}

const turns = await Promise.all(Array.from({ length: Number(process.env.TURNS) }, (_, n) => turn(n)));
await withClient((db) => bot.recordTournament(db, guild(1), results));
await pool.end();
console.log(JSON.stringify(turns.map((told) => ({ ...told, rivals: [...new Set(told.rivals)] }))));
