//! The connection with Cassandra: whether it answers, when it is tried again, when a session is given up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::fault::CassandraFault;
use super::link::{CassandraLink, LinkSlot};
use crate::config::cassandra::Cassandra as Config;
use crate::store::write_path::WritePath;

/// Shortest pause between two attempts to reach Cassandra, in microseconds: the first one.
const BACKOFF_US_MIN: u64 = 100_000;
/// Longest pause between two attempts to reach Cassandra, in microseconds.
const BACKOFF_US_MAX: u64 = 3_000_000;
/// Time without one good answer after which a session is given up, in microseconds.
const HUNG_US: u64 = 8_000_000;
/// Interval at which an idle node checks that Cassandra and its tables are still there, in microseconds.
const CHECK_US: u64 = 5_000_000;
/// Interval at which a node puts new records on the disk while Cassandra is away.
const SPILL_PAUSE: Duration = Duration::from_millis(200);
/// Interval at which a node checks whether an attempt to connect has ended.
const TRYING_PAUSE: Duration = Duration::from_millis(10);

/// State of the connection with Cassandra.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// The last request was answered, at this monotonic time.
    Good { checked_us: u64 },
    /// The last request was not answered. The next attempt is due at this monotonic time.
    Away { next_us: u64 },
}

/// The result of [`Reach::look`].
pub(super) enum Look {
    /// Cassandra was not asked. The link that answered lately, if there is one.
    Same(Option<Arc<CassandraLink>>),
    /// Cassandra was asked, with this result.
    Tried(Result<Arc<CassandraLink>, CassandraFault>),
}

/// Keeps the link with Cassandra: makes it, checks that it still answers, and gives it up.
///
/// The writer calls [`Reach::look`] in each of its turns and answers every [`Look::Tried`] with
/// [`Reach::handle_link`] or [`Reach::handle_fault`]; at the end of a turn it calls [`Reach::wait`].
pub(super) struct Reach {
    config: Config,
    slot: LinkSlot,
    path: Arc<WritePath>,
    standing: Standing,
    /// Monotonic time since which writes fail, in microseconds; `None` while they succeed. Only a write ends
    /// this: with too few copies alive Cassandra answers, but accepts no writes.
    failing_since_us: Option<u64>,
    /// The pause after the next failure, in microseconds.
    backoff_us: u64,
    /// Id of the table `latest` of the last link.
    table_id: Option<String>,
    /// An attempt to reach Cassandra that is under way.
    trying: Option<JoinHandle<Result<Arc<CassandraLink>, CassandraFault>>>,
}

impl Reach {
    /// Makes the state before Cassandra is reached. Links are put into `slot`, for the other tasks.
    pub(super) fn new(config: Config, slot: LinkSlot, path: Arc<WritePath>) -> Reach {
        Reach {
            config,
            slot,
            path,
            standing: Standing::Away { next_us: 0 },
            failing_since_us: None,
            backoff_us: BACKOFF_US_MIN,
            table_id: None,
            trying: None,
        }
    }

    fn now_us(&self) -> u64 {
        (self.path.clock)().mono_us
    }

    /// The link, if the last request was answered.
    pub(super) fn good_link(&self) -> Option<Arc<CassandraLink>> {
        match self.standing {
            Standing::Good { .. } => self.slot.lock().clone(),
            Standing::Away { .. } => None,
        }
    }

    /// Checks the link if it is time: asks whether Cassandra answers, or tries in the background to connect.
    pub(super) async fn look(&mut self) -> Look {
        let now_us = self.now_us();
        match self.standing {
            Standing::Good { checked_us } if now_us < checked_us + CHECK_US => Look::Same(self.good_link()),
            Standing::Good { .. } => Look::Tried(self.attempt().await),
            // The writer's turns go on during a try, and put what is pushed on the disk.
            Standing::Away { next_us } => {
                match self.trying.take() {
                    None if now_us < next_us => Look::Same(None),
                    Some(trying) if trying.is_finished() => Look::Tried(trying.await.unwrap_or_else(|_| {
                        Err(CassandraFault::Away("connecting to Cassandra failed".into()))
                    })),
                    trying => {
                        self.trying = Some(trying.unwrap_or_else(|| tokio::spawn(self.attempt())));
                        Look::Same(None)
                    }
                }
            }
        }
    }

    /// Checks the present link, or makes one if there is none.
    fn attempt(&self) -> impl Future<Output = Result<Arc<CassandraLink>, CassandraFault>> + Send + use<> {
        let (known, config) = (self.slot.lock().clone(), self.config.clone());
        async move {
            match known {
                Some(link) => link.check().await.map(|()| link),
                None => CassandraLink::open(&config).await.map(Arc::new),
            }
        }
    }

    /// Notes a link on which Cassandra answers. Returns whether its tables are others than those of the
    /// link before: then they are empty.
    pub(super) fn handle_link(&mut self, link: &Arc<CassandraLink>) -> bool {
        let before = self.table_id.replace(link.table_id.clone());
        *self.slot.lock() = Some(link.clone());
        self.handle_answer();
        before.is_some_and(|before| before != link.table_id)
    }

    /// Notes that Cassandra answered a request.
    pub(super) fn handle_answer(&mut self) {
        self.standing = Standing::Good { checked_us: self.now_us() };
    }

    /// Notes that Cassandra accepts writes, or that there is nothing to write. `waiting` is the number of
    /// records that wait on the disk.
    pub(super) fn handle_back(&mut self, waiting: usize) {
        (self.failing_since_us, self.backoff_us) = (None, BACKOFF_US_MIN);
        if self.path.away().is_some() {
            tracing::info!(waiting, "Cassandra answers");
            self.path.set_away(None);
        }
    }

    /// Notes that a request failed, and gives the session up if another may do better.
    pub(super) fn handle_fault(&mut self, fault: &CassandraFault) {
        let now_us = self.now_us();
        let since_us = *self.failing_since_us.get_or_insert(now_us);
        let reason = fault.to_string();
        // Logged once for each reason: Cassandra may stay away for days.
        if self.path.away().as_ref() != Some(&reason) {
            tracing::warn!(reason, "Cassandra is away");
        }
        self.path.set_away(Some(reason));
        self.standing = Standing::Away { next_us: now_us + self.backoff_us };
        self.backoff_us = (self.backoff_us * 2).min(BACKOFF_US_MAX);
        if !matches!(fault, CassandraFault::Away(_)) || now_us - since_us >= HUNG_US {
            self.drop_link();
        }
    }

    /// Gives the session up.
    pub(super) fn drop_link(&self) {
        *self.slot.lock() = None;
    }

    /// Waits until there is something to do: the bell rings, or a check or an attempt is due. `is_busy` is
    /// whether there is more to be written, so that nothing is waited for while Cassandra answers.
    pub(super) async fn wait(&self, is_busy: bool, bell: &Notify) {
        match self.standing {
            Standing::Good { .. } if is_busy => tokio::task::yield_now().await,
            Standing::Good { checked_us } => {
                let left_us = (checked_us + CHECK_US).saturating_sub(self.now_us());
                // The bell and the end of the time mean the same: the next turn looks for work.
                let _ = tokio::time::timeout(Duration::from_micros(left_us), bell.notified()).await;
            }
            Standing::Away { next_us } => match &self.trying {
                None => {
                    let left = Duration::from_micros(next_us.saturating_sub(self.now_us()));
                    tokio::time::sleep(left.min(SPILL_PAUSE)).await;
                }
                Some(trying) => {
                    let tried = async {
                        while !trying.is_finished() {
                            tokio::time::sleep(TRYING_PAUSE).await;
                        }
                    };
                    let _ = tokio::time::timeout(SPILL_PAUSE, tried).await;
                }
            },
        }
    }
}
