//! Readers take any bytes without a panic, and what is crafted is read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{FRAME_BYTES_MAX, HEAD_BYTES, craft, read};

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(head)) = wire::head(data) {
        assert!((HEAD_BYTES..=FRAME_BYTES_MAX).contains(&head.bytes));
        let frame = &data[..data.len().min(head.bytes)];
        let body = read::body(frame);
        for field in [b'S', b'V', b'C', b'M', b'D', 0] {
            if let Some(value) = wire::error_field(body, field) {
                assert!(!value.contains(&0));
            }
        }
        read::tag_rows(body);
    }
    let Ok((name, rest)) = wire::cstr(data) else { return };
    assert_eq!(name.len() + 1 + rest.len(), data.len());
    let mut crafted = Vec::new();
    craft::bind(&mut crafted, name, name, rest);
    let head = wire::head(&crafted).expect("our own length").expect("a whole head");
    assert_eq!((head.kind, head.bytes), (b'B', crafted.len()));
    let (portal, behind) = wire::cstr(read::body(&crafted)).expect("a portal");
    let (statement, tail) = wire::cstr(behind).expect("a statement");
    assert_eq!((portal, statement, tail), (name, name, rest));
});
