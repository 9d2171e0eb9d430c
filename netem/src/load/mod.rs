//! The clients of a run: publishers and subscribers that speak WebSocket, lose their connections and come back. They
//! tell a recorder everything that they offer and see.

mod clients;
pub(crate) mod course;
pub(crate) mod frames;
mod publisher;
mod reader;
pub mod recorder;
pub(crate) mod shared;
pub(crate) mod socket;
mod subscriber;

use std::sync::mpsc::sync_channel;

use anode_loadgen::Outcome;

use crate::checker::Mode;
use recorder::Recorder;

pub use clients::Clients;
pub(crate) use shared::Shared;
pub use shared::{Counts, Plan, ROOT};

/// Records that wait to be read back. Further ones are not read back.
const READS_WAITING_MAX: usize = 64;

/// The clients of a run of aNode.
pub struct Load {
    /// The running clients.
    pub clients: Clients,
}

impl Load {
    /// Starts two subscribers for each node, one of either mode.
    pub fn start(plan: Plan, recorder: Recorder) -> Outcome<Load> {
        let mut clients = Clients::new(plan, recorder);
        let nodes = clients.nodes();
        for number in 0..nodes * 2 {
            let mode = if number < nodes { Mode::Latest } else { Mode::All };
            clients.start(format!("sub-{number}"), move |shared| subscriber::run(shared, number, mode))?;
        }
        Ok(Load { clients })
    }

    /// Starts a publisher for each node, and a reader that reads back what was replicated.
    pub fn publish(&mut self) -> Outcome<()> {
        let (reads_in, reads) = sync_channel(READS_WAITING_MAX);
        for number in 0..self.clients.nodes() {
            let reads = reads_in.clone();
            self.clients.start_publisher(number, move |shared| publisher::run(shared, number, &reads))?;
        }
        self.clients.start("reader".to_owned(), move |shared| reader::run(shared, &reads))
    }
}
