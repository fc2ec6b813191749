-- Rows made inside PostgreSQL from a fixed seed; {{scale}} 1 is 200,000 users, 2,000,000 matches, 1,000,000 rows of
-- statistics and 5,000 guilds. The n-th user is 200000000000000000 + n * 4194304, the n-th guild
-- 300000000000000000 + n * 4194304, so that a workload can name them without asking. The square of a uniform
-- number gives the skew: a tenth of the users plays about a third of all matches, and so with the guilds.

SELECT setseed(0.20);

INSERT INTO users (id, discord_id, guild_id, username, locale, rating, games, wins, about, joined_at, last_seen)
SELECT n + 1,
       200000000000000000 + n * 4194304,
       300000000000000000 + floor((5000 * {{scale}}) * g * g)::bigint * 4194304,
       (ARRAY['quiet', 'brave', 'lucky', 'swift', 'grim', 'merry', 'odd', 'silver'])[1 + (n % 8)] || '_'
           || (ARRAY['fox', 'otter', 'raven', 'wolf', 'moth', 'lynx', 'heron'])[1 + (n % 7)] || n,
       (ARRAY['en-GB', 'en-US', 'de', 'fr', 'pt-BR', 'ja'])[1 + floor(random() * random() * 6)::int],
       (1000 + 250 * (random() + random() + random() - 1.5))::int,
       games, (games * (0.3 + 0.4 * random()))::int,
       CASE WHEN random() < 0.3 THEN repeat('plays for fun. ', 1 + (random() * 8)::int) END,
       now() - random() * interval '1200 days',
       CASE WHEN g < 0.9 THEN now() - g * interval '90 days' END
FROM (SELECT n, random() AS g, (40 * random() * random())::int AS games
      FROM generate_series(0, (200000 * {{scale}})::bigint - 1) AS n) AS player;

ALTER TABLE users ADD PRIMARY KEY (id);

SELECT setseed(0.21);

INSERT INTO matches (id, discord_id, opponent_id, guild_id, result, rating_change, played_at)
SELECT n + 1,
       200000000000000000 + floor((200000 * {{scale}}) * a * a)::bigint * 4194304,
       200000000000000000 + floor((200000 * {{scale}}) * b * b)::bigint * 4194304,
       300000000000000000 + floor((5000 * {{scale}}) * c * c)::bigint * 4194304,
       CASE WHEN a + b < 1.2 * c THEN 'loss' WHEN c < 0.1 THEN 'draw' ELSE 'win' END,
       (25 * (b - c))::int,
       now() - interval '720 days' * (1 - n / (2000000.0::float8 * {{scale}}))
FROM (SELECT n, random() AS a, random() AS b, random() AS c
      FROM generate_series(0, (2000000 * {{scale}})::bigint - 1) AS n) AS played;

ALTER TABLE matches ADD PRIMARY KEY (id);

SELECT setseed(0.22);

INSERT INTO server_stats (id, guild_id, day, messages, commands, members)
SELECT n + 1,
       300000000000000000 + floor((5000 * {{scale}}) * a * a)::bigint * 4194304,
       current_date - (365 * (1 - n / (1000000.0::float8 * {{scale}})))::int,
       (2000 * b * b)::int, (200 * b * c)::int, (20 + 5000 * (1 - a) * (1 - a))::int
FROM (SELECT n, random() AS a, random() AS b, random() AS c
      FROM generate_series(0, (1000000 * {{scale}})::bigint - 1) AS n) AS sample;

ALTER TABLE server_stats ADD PRIMARY KEY (id);

SELECT setseed(0.23);

INSERT INTO guild_settings (id, guild_id, prefix, locale, log_channel_id, welcome_message, settings, updated_at)
SELECT n + 1,
       300000000000000000 + n * 4194304,
       (ARRAY['!', '?', '.', '$'])[1 + floor(random() * random() * 4)::int],
       (ARRAY['en-GB', 'en-US', 'de', 'fr'])[1 + (n % 4)],
       CASE WHEN random() < 0.6 THEN 400000000000000000 + n * 4194304 END,
       CASE WHEN random() < 0.7 THEN 'Welcome, {user}! Read the rules, pick a role, and say hello in #lobby.' END,
       jsonb_build_object('ranked', random() < 0.8, 'moderation', random() < 0.5, 'season', n % 12),
       now() - random() * interval '400 days'
FROM generate_series(0, (5000 * {{scale}})::bigint - 1) AS n;

ALTER TABLE guild_settings ADD PRIMARY KEY (id);

SELECT setval(pg_get_serial_sequence('users', 'id'), (SELECT max(id) FROM users));

SELECT setval(pg_get_serial_sequence('matches', 'id'), (SELECT max(id) FROM matches));

SELECT setval(pg_get_serial_sequence('server_stats', 'id'), (SELECT max(id) FROM server_stats));

SELECT setval(pg_get_serial_sequence('guild_settings', 'id'), (SELECT max(id) FROM guild_settings));

-- As a database that has been in use: visibility maps and statistics are there.
VACUUM (ANALYZE) users, matches, server_stats, guild_settings;
