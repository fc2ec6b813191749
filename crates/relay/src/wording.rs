//! Errors that a server words in its own terms, put into the client's.

use wire::{craft, read};

use crate::Server;

impl Server {
    /// An ErrorResponse goes to the client, in our words when a limit of ours was the cause or it names
    /// a statement by our name.
    pub(crate) fn pass_error(&mut self, frame: &[u8], to_client: &mut Vec<u8>) {
        if let Some(name) = self.own_name.take() {
            let (name, exists) = (String::from_utf8_lossy(&name), !missing_statement(frame));
            let what = if exists { "already exists" } else { "does not exist" };
            let message = format!("prepared statement \"{name}\" {what}");
            let code = if exists { "42P05" } else { "26000" };
            let reply =
                craft::ErrorReply { severity: "ERROR", code, message: &message, detail: None, hint: None };
            return craft::error(to_client, &reply);
        }
        let cancelled = wire::error_field(read::body(frame), b'C') == Some(b"57014");
        match self.cancelled_by.take_if(|_| cancelled) {
            Some(message) => craft::error(
                to_client,
                &craft::ErrorReply {
                    severity: "ERROR",
                    code: "57014",
                    message: &message,
                    detail: None,
                    hint: None,
                },
            ),
            None => to_client.extend_from_slice(frame),
        }
    }
}

/// Whether an ErrorResponse says that a prepared statement is not there.
fn missing_statement(frame: &[u8]) -> bool {
    wire::error_field(read::body(frame), b'C') == Some(b"26000")
}
