//! Beginnings: clients and servers that login hands over.

use std::io;
use std::sync::Arc;

use super::socket::Stream;
use super::state::{About, Client, Course, Phase, Server, State, client_token, place, server_token};
use crate::handover::{ConnectFault, NewClient, NewServer};

impl State {
    pub(super) fn add_client(&mut self, new: NewClient) -> io::Result<()> {
        let at = place(&mut self.clients, &mut self.free_clients);
        let mut socket = Stream::new(new.socket)?;
        socket.register(&self.registry, client_token(at))?;
        self.client_number += 1;
        let parameters = new.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let application = new.parameters.iter().find(|(name, _)| name == "application_name");
        let application = application.map_or_else(String::new, |(_, value)| value.clone());
        let session = relay::Client::new(self.client_number & 0xffff_ffff, parameters);
        self.cancels.insert(new.cancel, at);
        self.clients[at] = Some(Box::new(Client {
            socket: Some(socket),
            pool: new.pool.index(),
            session,
            held: new.received,
            out: Vec::new(),
            writing: false,
            unread: false,
            ended: false,
            leaving: false,
            abandoned: false,
            began_us: 0,
            resting: false,
            phase: Phase::Idle,
            session_mode: new.session_mode,
            pin_counted: false,
            cancel: new.cancel,
            about: About { user: new.user, peer: new.peer, application, since_us: self.now_us },
            trail: stats::Trail::new(new.pool.0),
            arrived_us: 0,
            waited_us: 0,
            linked_us: 0,
            wait_counted: false,
            _permit: new.permit,
        }));
        self.todo.push_back(at);
        Ok(())
    }

    pub(super) fn server_opened(
        &mut self,
        index: usize,
        id: pool::ServerId,
        result: Result<NewServer, ConnectFault>,
    ) {
        let now_us = self.now_us;
        let Some(pool) = self.pools.get_mut(index).and_then(Option::as_mut) else { return };
        let new = match result {
            Ok(new) => new,
            Err(fault) => return self.not_opened(index, id, fault),
        };
        let at = place(&mut self.servers, &mut self.free_servers);
        let registered = Stream::new(new.socket).and_then(|mut socket| {
            socket.register(&self.registry, server_token(at))?;
            Ok(socket)
        });
        let socket = match registered {
            Ok(socket) => socket,
            Err(error) => {
                self.free_servers.push(at);
                let fault = ConnectFault::new(b"58000", format!("a server could not be registered: {error}"));
                return self.not_opened(index, id, fault);
            }
        };
        self.shard.server_created(index as u16, new.connect_us);
        let slot = id.0 as usize;
        if pool.slots.len() <= slot {
            pool.slots.resize(slot + 1, None);
        }
        pool.slots[slot] = Some(at);
        let reported = new.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.servers[at] = Some(Box::new(Server {
            socket,
            pool: index,
            id,
            session: relay::Server::new(reported),
            held: Vec::new(),
            out: Vec::new(),
            writing: false,
            unread: false,
            client: None,
            key: new.key,
            guard: Arc::default(),
            fenced: false,
            idle_since_us: None,
            idle_us: 0,
            failed: false,
            cancelled_us: None,
            course: Course::Serving,
        }));
        let reached = pool.reach.opened(now_us);
        let released = pool.pool.opened(id, now_us);
        self.released(at, released);
        self.reached(index, reached);
        if !new.received.is_empty() {
            self.answer(at, &new.received);
        }
    }
}
