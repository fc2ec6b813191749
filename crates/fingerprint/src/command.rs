//! The commands of SQL.

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a statement does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Command {
            $($(#[$doc])* #[doc = $text] $name,)*
        }

        impl Command {
            /// The command as PostgreSQL writes it; `QUERY` for any other, `EMPTY` for none.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

commands! {
    Select = "SELECT", Insert = "INSERT", Update = "UPDATE", Delete = "DELETE", Merge = "MERGE",
    Values = "VALUES", Copy = "COPY", Begin = "BEGIN", Commit = "COMMIT", Rollback = "ROLLBACK",
    Savepoint = "SAVEPOINT", Release = "RELEASE", RollbackTo = "ROLLBACK TO", Set = "SET", Reset = "RESET",
    Show = "SHOW", Prepare = "PREPARE", Execute = "EXECUTE", Deallocate = "DEALLOCATE", Discard = "DISCARD",
    Declare = "DECLARE", Fetch = "FETCH", Close = "CLOSE", Listen = "LISTEN", Unlisten = "UNLISTEN",
    Notify = "NOTIFY", Vacuum = "VACUUM", Analyze = "ANALYZE", Explain = "EXPLAIN", Create = "CREATE",
    CreateIndex = "CREATE INDEX", Alter = "ALTER", Drop = "DROP", Truncate = "TRUNCATE", Lock = "LOCK",
    Call = "CALL", Do = "DO", Reindex = "REINDEX", Cluster = "CLUSTER", Refresh = "REFRESH", With = "WITH",
    Other = "QUERY", Empty = "EMPTY",
}

impl Command {
    /// BEGIN, COMMIT, ROLLBACK and savepoints.
    pub fn is_transaction_control(self) -> bool {
        matches!(
            self,
            Self::Begin | Self::Commit | Self::Rollback | Self::Savepoint | Self::Release | Self::RollbackTo
        )
    }

    pub(crate) fn of(word: &[u8]) -> Self {
        const WORDS: &[(&str, Command)] = &[
            ("SELECT", Command::Select),
            ("INSERT", Command::Insert),
            ("UPDATE", Command::Update),
            ("DELETE", Command::Delete),
            ("WITH", Command::With),
            ("BEGIN", Command::Begin),
            ("COMMIT", Command::Commit),
            ("SET", Command::Set),
            ("MERGE", Command::Merge),
            ("VALUES", Command::Values),
            ("TABLE", Command::Select),
            ("COPY", Command::Copy),
            ("START", Command::Begin),
            ("END", Command::Commit),
            ("ROLLBACK", Command::Rollback),
            ("ABORT", Command::Rollback),
            ("SAVEPOINT", Command::Savepoint),
            ("RELEASE", Command::Release),
            ("RESET", Command::Reset),
            ("SHOW", Command::Show),
            ("PREPARE", Command::Prepare),
            ("EXECUTE", Command::Execute),
            ("DEALLOCATE", Command::Deallocate),
            ("DISCARD", Command::Discard),
            ("DECLARE", Command::Declare),
            ("FETCH", Command::Fetch),
            ("MOVE", Command::Fetch),
            ("CLOSE", Command::Close),
            ("LISTEN", Command::Listen),
            ("UNLISTEN", Command::Unlisten),
            ("NOTIFY", Command::Notify),
            ("VACUUM", Command::Vacuum),
            ("ANALYZE", Command::Analyze),
            ("ANALYSE", Command::Analyze),
            ("EXPLAIN", Command::Explain),
            ("CREATE", Command::Create),
            ("ALTER", Command::Alter),
            ("DROP", Command::Drop),
            ("TRUNCATE", Command::Truncate),
            ("LOCK", Command::Lock),
            ("CALL", Command::Call),
            ("DO", Command::Do),
            ("REINDEX", Command::Reindex),
            ("CLUSTER", Command::Cluster),
            ("REFRESH", Command::Refresh),
        ];
        WORDS
            .iter()
            .find(|(known, _)| word.eq_ignore_ascii_case(known.as_bytes()))
            .map_or(Self::Other, |(_, command)| *command)
    }
}
