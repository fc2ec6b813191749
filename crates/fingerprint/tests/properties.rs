//! What must hold for any text.
#![allow(clippy::unwrap_used, missing_docs)]

use fingerprint::{
    Catalog, Command, Effects, Place, deallocate_name, hex, normalize, scan, set_target, tables,
};
use proptest::prelude::*;

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z_]{1,6}",
        "[0-9]{1,4}(\\.[0-9]+)?",
        "'[a-z ]{0,5}'",
        "\\$[1-9]",
        "\"[A-Z ]{1,4}\"",
        Just("$q$ it's $q$".to_owned()),
        Just("E'\\''".to_owned()),
        proptest::sample::select(vec![
            "(", ")", ",", ";", ".", "::", ":", "-", "+", "*", "=", "<=", "[", "]", "IN", "VALUES", "ARRAY",
            "SELECT", "FROM", "LIMIT", "OFFSET", "/", "$", "u", "e", "WITH", "SET"
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|all| all.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn never_panics(sql in proptest::collection::vec(any::<u8>(), 0..200)) {
        let shape = scan(&sql);
        Catalog::new(1).intern(&sql, &shape);
        set_target(&sql);
        deallocate_name(&sql);
        normalize(&sql, 50);
    }

    #[test]
    fn never_panics_on_sql(sql in pieces()) {
        tables(sql.as_bytes());
        set_target(sql.as_bytes());
        deallocate_name(sql.as_bytes());
    }

    #[test]
    fn normal_text_is_its_own_normal_text(sql in pieces()) {
        let once = normalize(sql.as_bytes(), 100_000);
        prop_assert_eq!(normalize(once.as_bytes(), 100_000), once);
    }

    #[test]
    fn comments_and_layout_do_not_matter(sql in pieces()) {
        let dollar = sql.contains("$q$");
        let spaced = if dollar { format!("\n{sql}\t") } else { format!("/* a /* b */ */{sql} -- end") };
        prop_assert_eq!(scan(spaced.as_bytes()).id, scan(sql.as_bytes()).id);
    }

    #[test]
    fn literals_do_not_matter(a in "[0-9]{1,9}", b in "[a-z ;/*-]{0,9}", c in -99i32..99) {
        let id = |x: &str, y: &str, z: &str| {
            scan(format!("SELECT a FROM t WHERE x = {x} AND y = {y} LIMIT {z}").as_bytes()).id
        };
        prop_assert_eq!(id(&a, &format!("'{b}'"), &c.to_string()), id("$1", "E'\\'x'", "5"));
    }

    #[test]
    fn lists_fold(count in 1usize..50) {
        let list = vec!["-7"; count].join(", ");
        let rows = vec!["(1, now())"; count].join(",");
        prop_assert_eq!(
            normalize(format!("select * from t where a in ({list})").as_bytes(), 1000),
            "SELECT * FROM t WHERE a IN ($1)"
        );
        prop_assert_eq!(
            normalize(format!("insert into t (a, b) values {rows} returning a").as_bytes(), 1000),
            "INSERT INTO t(a, b) VALUES ($1, now()) RETURNING a"
        );
    }
}

#[test]
fn ids_are_for_ever() {
    assert_eq!(hex(scan(b"SELECT 1").id), hex(scan(b"select $1 -- x").id));
    assert_eq!(hex(scan(b"SELECT 1").id), PINNED);
}

const PINNED: &str = "044c683846f5b8a8";

#[test]
fn keeps_parameter_numbers_and_numbers_literals_after_them() {
    assert_eq!(
        normalize(b"SELECT * FROM a.t WHERE x=$2 AND y=$1 AND z='q' LIMIT 10;", 1000),
        "SELECT * FROM a.t WHERE x = $2 AND y = $1 AND z = $3 LIMIT $4"
    );
    assert_eq!(
        normalize(b"SELECT a - 1, -1, a::text, count(*) FROM \"T\"", 1000),
        "SELECT a - $1, $2, a::text, count(*) FROM \"T\""
    );
}

#[test]
fn unfinished_text_is_its_command_word() {
    let shape = scan(b"SELECT 'secret");
    assert!(!shape.complete);
    assert_eq!(normalize(b"SELECT 'secret", 1000), "SELECT");
    assert_eq!(shape.id, scan(b"select /* other").id);
}

#[test]
fn finds_limit_and_offset_at_the_outermost_level() {
    let shape = scan(b"SELECT * FROM (SELECT 1 LIMIT 9) x ORDER BY 1 LIMIT $2 OFFSET 400");
    assert_eq!((shape.limit, shape.offset), (Some(Place::Param(2)), Some(Place::Literal(400))));
    assert_eq!(scan(b"SELECT 1 FETCH FIRST 3 ROWS ONLY").limit, Some(Place::Literal(3)));
    assert_eq!(scan(b"SELECT (SELECT 1 LIMIT 1)").limit, None);
}

#[test]
fn knows_commands() {
    let cases: [(&str, Command); 10] = [
        ("with a as (select 1) update t set x = 1", Command::Update),
        ("(select 1)", Command::Select),
        ("create unique index i on t (a)", Command::CreateIndex),
        ("start transaction", Command::Begin),
        ("end", Command::Commit),
        ("rollback to savepoint s", Command::RollbackTo),
        ("abort", Command::Rollback),
        ("", Command::Empty),
        ("-- nothing", Command::Empty),
        ("frobnicate", Command::Other),
    ];
    for (sql, command) in cases {
        assert_eq!(scan(sql.as_bytes()).command, command, "{sql}");
    }
}

#[test]
fn knows_effects() {
    let none = Effects::empty();
    let cases = [
        ("SET search_path = x", Effects::SET_SESSION),
        ("SET LOCAL search_path = x", Effects::SET_LOCAL),
        ("SET TRANSACTION READ ONLY", none),
        ("BEGIN; SET LOCAL a = 1; COMMIT", Effects::SET_LOCAL | Effects::MULTIPLE),
        ("SET a = 1; SET LOCAL a = 1", Effects::SET_SESSION | Effects::SET_LOCAL | Effects::MULTIPLE),
        ("RESET ALL", Effects::RESET_ALL),
        ("RESET a", Effects::SET_SESSION),
        ("SET a = 1; RESET ALL", Effects::SET_SESSION | Effects::RESET_ALL | Effects::MULTIPLE),
        ("DO 'BEGIN END'", Effects::SET_SESSION),
        ("UPDATE pg_settings SET setting = 1", Effects::SET_SESSION),
        ("SELECT U&\"a\"(1)", Effects::SET_CONFIG),
        ("EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1", Effects::TEMP_TABLE),
        ("SELECT 1 INTO LOCAL TEMP x", Effects::TEMP_TABLE),
        ("SELECT 1 INTO \"pg_temp\".x", Effects::TEMP_TABLE),
        ("SELECT E'a' -- b\n '\\'; SET a = 1; --'", none),
        ("SELECT E'a'\n'\\''; SET a = 1; --'", Effects::SET_SESSION | Effects::MULTIPLE),
        ("SELECT 'a'\n'\\'; SET a = 1; --'", Effects::SET_SESSION | Effects::MULTIPLE),
        ("UPDATE t SET a = 1", none),
        ("SELECT set_config('a', 'b', false)", Effects::SET_CONFIG),
        ("PREPARE p AS SELECT 1", Effects::PREPARE),
        ("PREPARE TRANSACTION 'x'", none),
        ("DEALLOCATE p", Effects::DEALLOCATE_ONE),
        ("DEALLOCATE PREPARE ALL", Effects::DEALLOCATE_ALL),
        ("DISCARD ALL", Effects::DISCARD_ALL),
        ("LISTEN x", Effects::LISTEN),
        ("CREATE TEMP TABLE x (a int)", Effects::TEMP_TABLE),
        ("SELECT 1 INTO TEMP x", Effects::TEMP_TABLE),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Effects::HOLD_CURSOR),
        ("SELECT pg_advisory_lock(1)", Effects::ADVISORY_LOCK),
        ("SELECT pg_advisory_xact_lock(1)", none),
        ("SELECT 1; SELECT 2", Effects::MULTIPLE),
        ("SELECT 1;", none),
        ("COPY t FROM STDIN", Effects::TIMEOUT_EXEMPT),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", Effects::TIMEOUT_EXEMPT),
        ("VACUUM", Effects::TIMEOUT_EXEMPT),
    ];
    for (sql, effects) in cases {
        assert_eq!(scan(sql.as_bytes()).effects, effects, "{sql}");
    }
}

#[test]
fn finds_names() {
    assert_eq!(set_target(b"SET SESSION TimeZone TO 'UTC'"), Some(&b"TimeZone"[..]));
    assert_eq!(set_target(b"SET TIME ZONE 'UTC'"), Some(&b"TimeZone"[..]));
    assert_eq!(set_target(b"SET LOCAL a = 1"), None);
    assert_eq!(set_target(b"SET a = 1; SELECT 1"), None);
    assert_eq!(deallocate_name(b"DEALLOCATE PREPARE \"A\"\"b\"").unwrap(), b"A\"b");
    assert_eq!(deallocate_name(b"deallocate Foo;").unwrap(), b"foo");
    assert_eq!(deallocate_name(b"DEALLOCATE ALL"), None);
    assert_eq!(
        tables(b"WITH c AS (SELECT 1 FROM a.b) SELECT extract(year FROM d) FROM c, x AS y, z JOIN \"W\" ON true WHERE f(1) IS DISTINCT FROM 2"),
        ["a.b", "x", "z", "W"]
    );
    assert_eq!(
        tables(b"INSERT INTO t (a) SELECT 1 FROM generate_series(1, 2) ON CONFLICT DO UPDATE SET a = 1"),
        ["t"]
    );
    assert_eq!(tables(b"SELECT 1 FROM t FOR UPDATE"), ["t"]);
}

#[test]
fn the_catalog_is_bounded() {
    let mut catalog = Catalog::new(2);
    let mut slot = |sql: &str| catalog.intern(sql.as_bytes(), &scan(sql.as_bytes()));
    assert_eq!([slot("SELECT a"), slot("SELECT b"), slot("SELECT c"), slot("select A")], [1, 2, 0, 1]);
    assert_eq!((catalog.text(1), catalog.name(0).as_str()), ("SELECT a", "other"));
}
