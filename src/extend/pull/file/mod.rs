//! Pull sources that follow a file on one named node, line by line, through its rotation.

mod batch;
mod follow;
mod follower;
#[cfg(test)]
mod follower_tests;
mod position;

use super::fields::COMMON_FIELDS;
use super::fields::PullFields;
use crate::extend::definition::BadField;
use crate::record::NodeName;

pub(super) use follow::run;

/// PullFields of this kind alone.
const FILE_FIELDS: &[&str] = &["path", "node", "from", "every"];
/// Interval at which the file is looked at: default, least and most, in microseconds.
const LOOK_US: (u64, u64, u64) = (250_000, 20_000, 3_600_000_000);
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 4_096;

/// The file that is followed.
#[derive(Clone, Debug)]
pub(super) struct FilePull {
    path: String,
    node: String,
    from: FileStart,
    every_us: u64,
}

/// Where to begin with a file of which nothing is known so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileStart {
    /// At its first line.
    Start,
    /// Behind its last line.
    End,
}

impl FilePull {
    /// Reads the fields of this kind.
    pub fn read(fields: &PullFields<'_>) -> Result<FilePull, BadField> {
        fields.only(&[COMMON_FIELDS, FILE_FIELDS])?;
        let allowed = "an absolute path of at most 4096 bytes";
        let path = fields.required_text("path", allowed)?;
        if !path.starts_with('/') || path.ends_with('/') || path.len() > PATH_BYTES_MAX || path.contains('\0')
        {
            return Err(fields.bad("path", allowed));
        }
        let node = fields.required_text("node", "the name of the node that has the file")?;
        NodeName::parse(node).map_err(|error| fields.bad("node", error.to_string()))?;
        let (every, least, most) = LOOK_US;
        Ok(FilePull {
            path: path.to_owned(),
            node: node.to_owned(),
            from: fields.choice("from", &[("start", FileStart::Start), ("end", FileStart::End)])?,
            every_us: fields.duration_us("every", least..=most, every)?,
        })
    }

    /// Returns the reason why the node of this name cannot follow the file, if there is one.
    pub fn cannot(&self, node: &str) -> Option<String> {
        (self.node != node).then(|| format!("the file is on node {}", self.node))
    }
}
