//! Poolwright.
fn main() {}
