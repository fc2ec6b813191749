//! A bounded table of fingerprints.

use hashbrown::HashMap;

use crate::{Command, Shape, normalize, tables};

/// Longest normalised text that is kept, in bytes.
const TEXT_LIMIT_BYTES: usize = 4_096;

#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    text: String,
    command: Command,
    tables: Vec<String>,
}

/// Gives each fingerprint a small number, its slot. Slot 0 is `other`: what did not fit.
#[derive(Clone, Debug)]
pub struct Catalog {
    slots: HashMap<u64, u32, foldhash::fast::FixedState>,
    entries: Vec<Entry>,
    max: u32,
}

impl Default for Catalog {
    /// Room for 5,000 fingerprints.
    fn default() -> Self {
        Self::new(5_000)
    }
}

impl Catalog {
    /// Room for `max` fingerprints.
    pub fn new(max: u32) -> Self {
        let other = Entry { id: 0, text: "other".to_owned(), command: Command::Other, tables: Vec::new() };
        Self { slots: HashMap::default(), entries: vec![other], max }
    }

    /// The slot of a query that was scanned; new ones are added while there is room. Allocates for new ones only.
    pub fn intern(&mut self, sql: &[u8], shape: &Shape) -> u32 {
        if let Some(slot) = self.slots.get(&shape.id) {
            return *slot;
        }
        if self.entries.len() as u64 > u64::from(self.max) {
            return 0;
        }
        let slot = self.entries.len() as u32;
        self.entries.push(Entry {
            id: shape.id,
            text: normalize(sql, TEXT_LIMIT_BYTES),
            command: shape.command,
            tables: tables(sql),
        });
        self.slots.insert(shape.id, slot);
        slot
    }

    /// The slot of an id, when it has one.
    pub fn find(&self, id: u64) -> Option<u32> {
        self.slots.get(&id).copied()
    }

    /// Normalised text of a slot, `other` for slot 0 and unknown ones.
    pub fn text(&self, slot: u32) -> &str {
        &self.entry(slot).text
    }

    /// Id of a slot, 0 for slot 0.
    pub fn id(&self, slot: u32) -> u64 {
        self.entry(slot).id
    }

    /// Public name of a slot: 16 hexadecimal digits or `other`.
    pub fn name(&self, slot: u32) -> String {
        let entry = self.entry(slot);
        if entry.id == 0 { entry.text.clone() } else { crate::hex(entry.id) }
    }

    /// Command of a slot.
    pub fn command(&self, slot: u32) -> Command {
        self.entry(slot).command
    }

    /// Tables of a slot.
    pub fn tables(&self, slot: u32) -> &[String] {
        &self.entry(slot).tables
    }

    /// Fingerprints known.
    pub fn len(&self) -> usize {
        self.entries.len() - 1
    }

    /// True when none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entry(&self, slot: u32) -> &Entry {
        self.entries.get(slot as usize).unwrap_or(&self.entries[0])
    }
}
