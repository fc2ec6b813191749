//! An application that writes a new query text each time: what is remembered and exported stays bounded, and nothing is
//! lost from the sums.
#![allow(clippy::unwrap_used)]

use tests::{Site, wait_until};

use crate::page;

/// More than the 5,000 that are told apart.
const QUERIES: usize = 5_300;
/// Series of their own at first, and one for what is left.
const EXPORTED_MAX: usize = 50 + 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_query_texts_is_bounded() {
    let site = Site::start("max = 2\nmin = 1");
    let client = tests::connect(&site.url()).await;
    let texts: Vec<String> = (0..QUERIES).map(|n| format!("SELECT 1 AS column_{n}")).collect();
    // Many at a time, so that the round trips do not add up.
    for some in texts.chunks(100) {
        let answers = futures_util::future::join_all(some.iter().map(|text| client.simple_query(text))).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    let families = || page::read(&site.http("/metrics"));
    let total = |name: &str| families()[name].samples.iter().map(|sample| sample.2).sum::<f64>();
    wait_until("all are counted", async || total("poolwright_queries_total") >= QUERIES as f64).await;
    let families = families();
    for name in ["poolwright_fingerprint_rows_total", "poolwright_fingerprint_query_seconds"] {
        let exported = families[name].values("fingerprint");
        assert!(exported.len() <= EXPORTED_MAX && exported.contains("other"), "{name}: {}", exported.len());
    }
    let count = |name: &str, suffix: &str| -> f64 {
        let samples = families[name].samples.iter();
        samples.filter(|sample| sample.0.ends_with(suffix)).map(|sample| sample.2).sum()
    };
    let queries = count("poolwright_queries_total", "_total");
    assert_eq!(count("poolwright_fingerprint_query_seconds", "_count"), queries);
    assert_eq!(
        count("poolwright_fingerprint_rows_total", "_total"),
        count("poolwright_rows_total", "_total")
    );
    let snapshot: serde_json::Value = serde_json::from_str(&site.http("/snapshot.json?checkouts=0")).unwrap();
    let known = snapshot["fingerprints"].as_array().unwrap().len();
    assert!((4_000..=5_001).contains(&known), "{known} fingerprints");
}
