//! The errors of stores.

use std::io::ErrorKind;

/// Error of a backend, by what the caller can do about it. Nothing is lost by any of them: a writer
/// keeps what it could not write, and a reader may ask again. The text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room: on the disk, within a bound of bytes, or in a line of requests. The same call
    /// succeeds once something was taken away.
    #[error("{0}")]
    Full(String),
    /// The store does not answer or failed for now. The same call may succeed later.
    #[error("{0}")]
    Away(String),
    /// Stored bytes cannot be read: they are not those that were written.
    #[error("{0}")]
    Damaged(String),
    /// The store answered and refuses. Someone must change something (a password, a format, who else
    /// uses the file) before the same call can succeed.
    #[error("{0}")]
    Refused(String),
}

impl StoreError {
    /// Replaces the text and keeps the kind.
    pub(super) fn with_text(self, text: String) -> StoreError {
        match self {
            StoreError::Full(_) => StoreError::Full(text),
            StoreError::Away(_) => StoreError::Away(text),
            StoreError::Damaged(_) => StoreError::Damaged(text),
            StoreError::Refused(_) => StoreError::Refused(text),
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> StoreError {
        use redb::Error;
        let text = error.to_string();
        match error {
            Error::Io(error) => match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    StoreError::Full(text)
                }
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::Refused(text),
                ErrorKind::InvalidData => StoreError::Damaged(text),
                _ => StoreError::Away(text),
            },
            Error::Corrupted(_) => StoreError::Damaged(text),
            Error::DatabaseAlreadyOpen
            | Error::LockProtocolMismatch
            | Error::UpgradeRequired(_)
            | Error::TableTypeMismatch { .. }
            | Error::TypeDefinitionChanged { .. } => StoreError::Refused(text),
            // After a failed write or sync the file has to be opened again, which is done.
            _ => StoreError::Away(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_file_are_told_apart() {
        let io = |kind: ErrorKind| StoreError::from(redb::Error::Io(kind.into()));
        assert!(matches!(io(ErrorKind::StorageFull), StoreError::Full(_)));
        assert!(matches!(io(ErrorKind::BrokenPipe), StoreError::Away(_)));
        assert!(matches!(io(ErrorKind::PermissionDenied), StoreError::Refused(_)));
        let damaged = StoreError::from(redb::Error::Corrupted("page 7".into()));
        assert_eq!(damaged, StoreError::Damaged("DB corrupted: page 7".into()));
        assert!(matches!(StoreError::from(redb::Error::PreviousIo), StoreError::Away(_)));
        assert!(matches!(StoreError::from(redb::Error::DatabaseAlreadyOpen), StoreError::Refused(_)));
    }
}
