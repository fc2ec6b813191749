//! The data plane: sockets, login, cancel, console, and the workers that relay.
//!
//! Login is asynchronous code; at ReadyForQuery a socket moves to a worker, once (`handover`).

mod cancel;
mod console;
pub mod handover;
pub mod lifecycle;
pub mod login;
mod reload;
pub mod settings;
mod snapshot;
pub mod worker;

pub use console::Request;
pub use handover::{
    BackendKey, CancelKey, CancelTarget, ClientPermit, ConnectFault, NewClient, NewServer, Opener, PoolIndex,
    Socket,
};
pub use lifecycle::{Proxy, StartError};
pub use reload::Differences;
pub use settings::Settings;
