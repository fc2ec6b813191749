//! What a statement does to its session.

/// A set of effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Effects(pub u16);

impl Effects {
    /// SET that outlasts the transaction (not SET LOCAL, SET TRANSACTION or SET CONSTRAINTS), and RESET of one.
    pub const SET_SESSION: Self = Self(1);
    /// A call of `set_config`.
    pub const SET_CONFIG: Self = Self(1 << 1);
    /// PREPARE of SQL.
    pub const PREPARE: Self = Self(1 << 2);
    /// DEALLOCATE of one name.
    pub const DEALLOCATE_ONE: Self = Self(1 << 3);
    /// DEALLOCATE ALL.
    pub const DEALLOCATE_ALL: Self = Self(1 << 4);
    /// DISCARD ALL.
    pub const DISCARD_ALL: Self = Self(1 << 5);
    /// LISTEN.
    pub const LISTEN: Self = Self(1 << 6);
    /// A temporary table, view or sequence.
    pub const TEMP_TABLE: Self = Self(1 << 7);
    /// DECLARE … WITH HOLD.
    pub const HOLD_CURSOR: Self = Self(1 << 8);
    /// A session-level advisory lock.
    pub const ADVISORY_LOCK: Self = Self(1 << 9);
    /// More than one statement in the text.
    pub const MULTIPLE: Self = Self(1 << 10);
    /// COPY, VACUUM, CREATE INDEX and the like: the query time-out spares them.
    pub const TIMEOUT_EXEMPT: Self = Self(1 << 11);
    /// SET LOCAL, alone in its text or among others.
    pub const SET_LOCAL: Self = Self(1 << 12);
    /// RESET ALL.
    pub const RESET_ALL: Self = Self(1 << 13);

    /// No effect.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// True when all of `other` are in `self`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when any of `other` is in `self`.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// True when there is no effect.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOr for Effects {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl std::ops::BitOrAssign for Effects {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}
