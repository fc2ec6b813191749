//! Shared by the tests: start the program and a PostgreSQL, and stop them again.
