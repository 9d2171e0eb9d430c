//! The errors of Cassandra, by what has to follow.

use cdrs_tokio::frame::message_error::ErrorType;

use crate::store::error::StoreError;

/// The reason why a request to Cassandra failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CassandraFault {
    /// The same request may succeed later, or at another node of Cassandra.
    #[error("{0}")]
    Away(String),
    /// The session has lost every node, and may take long to find one: a new session finds one sooner.
    #[error("{0}")]
    Lost(String),
    /// Cassandra answers, and does not know the tables: they must be made.
    #[error("{0}")]
    Schema(String),
    /// Cassandra answers and refuses: someone must change something before it can succeed.
    #[error("{0}")]
    Refused(String),
}

impl CassandraFault {
    /// Sorts an error of the driver.
    pub(super) fn of(error: &cdrs_tokio::Error) -> CassandraFault {
        use cdrs_tokio::error::Error::{General, InvalidProtocol, Server};
        match error {
            Server { body, .. } => {
                let text = format!("Cassandra: {}", body.message);
                match body.ty {
                    ErrorType::Invalid | ErrorType::Config | ErrorType::Unprepared(_) => {
                        CassandraFault::Schema(text)
                    }
                    ErrorType::Authentication | ErrorType::Unauthorized | ErrorType::Syntax => {
                        CassandraFault::Refused(text)
                    }
                    _ => CassandraFault::Away(text),
                }
            }
            InvalidProtocol(addr) => {
                CassandraFault::Refused(format!("Cassandra at {addr} speaks another protocol"))
            }
            // The driver's text when a prepared statement means something else than before.
            General(text) if text.contains("schema changed") => CassandraFault::Schema(text.clone()),
            General(text) if text.contains("No nodes available") => {
                CassandraFault::Lost("no node of Cassandra is known to be up".into())
            }
            other => CassandraFault::Away(other.to_string()),
        }
    }
}

impl From<CassandraFault> for StoreError {
    fn from(fault: CassandraFault) -> StoreError {
        match fault {
            // A lost session is replaced and missing tables are made, so a later try may succeed.
            CassandraFault::Away(text) | CassandraFault::Lost(text) | CassandraFault::Schema(text) => {
                StoreError::Away(text)
            }
            CassandraFault::Refused(text) => StoreError::Refused(text),
        }
    }
}
