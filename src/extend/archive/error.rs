//! Why an archive cannot be written or read.

/// An error of the place where archives are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The place does not answer, or fails: the same request may succeed later.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// The place answered that it does not do this.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// What is asked for is not there.
    #[error("it is not in the store: {0}")]
    NotFound(String),
}

/// An error of an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The place failed.
    #[error(transparent)]
    Store(#[from] PlaceError),
    /// What is there is not what was written.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// Name of the archive and of the object in it.
        what: String,
        /// The reason: the hash, the length or the field that differs from the manifest.
        why: String,
    },
    /// This node cannot do it now.
    #[error("{0}")]
    Node(String),
}

impl ArchiveError {
    /// Says that an object is not what was written.
    pub fn damaged(what: impl Into<String>, why: impl Into<String>) -> ArchiveError {
        ArchiveError::Damaged { what: what.into(), why: why.into() }
    }
}
