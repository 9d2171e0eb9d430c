//! The place where the archives of one definition are, whatever its kind: folders of objects, each whole or absent.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::definition::{ArchiveDefinition, ArchivePlace};
use super::error::{ArchiveError, PlaceError};
use super::frame::{FRAME_BYTES_MAX, ReadFrame};
use super::ipfs::{AddedFile, IpfsNode};
use super::manifest::{FrameOf, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest};
use super::s3::{S3Bucket, sha256_hex};
use super::tableland::Tableland;
use crate::extend::host::ExtendHost;
use crate::extend::http_client::http_client;

/// Longest time that one archive may take to be written, in microseconds. What is older than twice that and has no
/// manifest is nobody's any more.
pub const WRITE_US_MAX: u64 = 6 * 3_600_000_000;

/// The place of the archives of one definition.
pub struct ArchiveStore {
    /// What the names of all objects, or of all pins, begin with. It ends with a slash.
    root: String,
    backing: Backing,
}

enum Backing {
    Objects(Objects),
    Ipfs(IpfsNode),
}

/// A place that keeps objects by their names.
enum Objects {
    S3(S3Bucket),
    Tableland(Tableland),
}

/// What is in the place.
#[derive(Debug, Default)]
pub struct Survey {
    /// Ids of the archives that are whole.
    pub whole: Vec<String>,
    /// Folders without a manifest, with the names of all their objects.
    partial: BTreeMap<String, Vec<String>>,
}

/// An archive that is being written.
pub struct ArchiveUpload<'a> {
    store: &'a ArchiveStore,
    folder: String,
    /// Names and sizes in bytes of the objects so far.
    objects: Vec<(String, u64)>,
    files: Vec<AddedFile>,
}

/// The name of the folder of an archive: when its writer began, in microseconds, and who it is.
pub fn folder_name(at: u64, node: &str) -> String {
    format!("{at:016}-{node}")
}

impl ArchiveStore {
    /// The place of a definition. Reads its secrets from the environment.
    pub fn open(
        host: &Arc<dyn ExtendHost>,
        name: &str,
        definition: &ArchiveDefinition,
    ) -> Result<ArchiveStore, ArchiveError> {
        let client = http_client(|builder| builder).map_err(ArchiveError::Node)?;
        Ok(match &definition.place {
            ArchivePlace::S3(place) => ArchiveStore {
                root: format!("{}{name}/", place.prefix),
                backing: Backing::Objects(Objects::S3(S3Bucket::new(client, host.clone(), place)?)),
            },
            ArchivePlace::Tableland(place) => ArchiveStore {
                root: format!("{}{name}/", place.prefix),
                backing: Backing::Objects(Objects::Tableland(Tableland::new(client, place)?)),
            },
            ArchivePlace::Ipfs(place) => ArchiveStore {
                root: format!("anode-archive/{name}/"),
                backing: Backing::Ipfs(IpfsNode::new(client, place)?),
            },
        })
    }

    /// Begins an archive in a folder of this name.
    pub fn begin(&self, folder: String) -> ArchiveUpload<'_> {
        ArchiveUpload { store: self, folder, objects: Vec::new(), files: Vec::new() }
    }

    /// Looks what is there.
    pub async fn survey(&self) -> Result<Survey, PlaceError> {
        let mut survey = Survey::default();
        match &self.backing {
            Backing::Ipfs(node) => {
                survey.whole = node.pins(&self.root).await?.into_iter().map(|(cid, _)| cid).collect();
            }
            Backing::Objects(objects) => {
                for (key, _) in objects.list(&self.root).await? {
                    let inner = key.strip_prefix(&self.root).and_then(|rest| rest.split_once('/'));
                    if let Some((folder, _)) = inner {
                        survey.partial.entry(folder.to_owned()).or_default().push(key);
                    }
                }
                let manifest = format!("/{MANIFEST_NAME}");
                let whole =
                    survey.partial.extract_if(.., |_, keys| keys.iter().any(|key| key.ends_with(&manifest)));
                survey.whole = whole.map(|(folder, _)| folder).collect();
            }
        }
        Ok(survey)
    }

    /// Removes what writers have left that were interrupted: this node, and any other one that cannot be at it any
    /// longer. Returns the number of folders.
    pub async fn clean(&self, survey: &Survey, node: &str, now_us: u64) -> Result<usize, PlaceError> {
        let Backing::Objects(objects) = &self.backing else { return Ok(0) };
        let mut count = 0;
        for (folder, keys) in &survey.partial {
            let Some((at, writer)) = folder.split_once('-') else { continue };
            let Ok(at) = at.parse::<u64>() else { continue };
            if writer == node || now_us.saturating_sub(at) > 2 * WRITE_US_MAX {
                for key in keys {
                    objects.delete(key).await?;
                }
                count += 1;
            }
        }
        Ok(count)
    }

    /// Removes an archive. It is absent as soon as this has begun.
    pub async fn remove(&self, id: &str, manifest: &Manifest) -> Result<(), PlaceError> {
        match &self.backing {
            Backing::Ipfs(node) => node.unpin(id).await,
            Backing::Objects(objects) => {
                objects.delete(&format!("{}{id}/{MANIFEST_NAME}", self.root)).await?;
                for frame in &manifest.frames {
                    objects.delete(&format!("{}{id}/{}", self.root, frame.name)).await?;
                }
                Ok(())
            }
        }
    }

    /// Reads a manifest. Returns it with its hash in hexadecimal.
    pub async fn manifest(&self, id: &str) -> Result<(Manifest, String), ArchiveError> {
        let text = self.read(id, MANIFEST_NAME, MANIFEST_BYTES_MAX).await?;
        Ok((Manifest::decode(id, &text)?, sha256_hex(&text)))
    }

    /// Reads a frame, and checks it against its entry in the manifest.
    pub async fn frame(&self, id: &str, entry: &FrameOf) -> Result<ReadFrame, ArchiveError> {
        let stored = self.read(id, &entry.name, FRAME_BYTES_MAX).await?;
        let (id, entry) = (id.to_owned(), entry.clone());
        let opened = tokio::task::spawn_blocking(move || ReadFrame::open(&id, &entry, &stored)).await;
        opened.map_err(|error| ArchiveError::Node(error.to_string()))?
    }

    async fn read(&self, id: &str, object: &str, bytes_max: usize) -> Result<Bytes, PlaceError> {
        match &self.backing {
            Backing::Objects(objects) => objects.get(&format!("{}{id}/{object}", self.root), bytes_max).await,
            Backing::Ipfs(node) => node.read(id, object, bytes_max).await,
        }
    }
}

impl Objects {
    /// Puts an object, which may be incomplete until this is done.
    async fn put(&self, key: &str, body: Bytes) -> Result<(), PlaceError> {
        match self {
            Objects::S3(bucket) => bucket.put(key, body).await,
            Objects::Tableland(table) => table.put(key, &body).await,
        }
    }

    /// Puts an object, which is there as a whole or not at all.
    async fn put_at_once(&self, key: &str, body: Bytes) -> Result<(), PlaceError> {
        match self {
            Objects::S3(bucket) => bucket.put(key, body).await,
            Objects::Tableland(table) => table.put_at_once(key, &body).await,
        }
    }

    /// Gets an object of at most `bytes_max` bytes.
    async fn get(&self, key: &str, bytes_max: usize) -> Result<Bytes, PlaceError> {
        match self {
            Objects::S3(bucket) => bucket.get(key, bytes_max).await,
            Objects::Tableland(table) => table.get(key, bytes_max).await,
        }
    }

    /// Deletes an object, if it is there.
    async fn delete(&self, key: &str) -> Result<(), PlaceError> {
        match self {
            Objects::S3(bucket) => bucket.delete(key).await,
            Objects::Tableland(table) => table.delete(key).await,
        }
    }

    /// Names and sizes of all objects whose names begin like this.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, PlaceError> {
        match self {
            Objects::S3(bucket) => bucket.list(prefix).await,
            Objects::Tableland(table) => table.list(prefix).await,
        }
    }
}

impl ArchiveUpload<'_> {
    /// Writes an object of the archive, other than the manifest.
    pub async fn put(&mut self, name: &str, content: Bytes) -> Result<(), PlaceError> {
        let bytes = content.len() as u64;
        if let Backing::Objects(Objects::Tableland(_)) = &self.store.backing {
            Tableland::check_size(bytes + self.objects.iter().map(|(_, bytes)| bytes).sum::<u64>())?;
        }
        match &self.store.backing {
            Backing::Objects(objects) => objects.put(&self.key(name), content).await?,
            Backing::Ipfs(node) => self.files.push(node.add(name, &content).await?),
        }
        self.objects.push((self.key(name), bytes));
        Ok(())
    }

    /// Writes the manifest, which makes the archive whole. Returns its id.
    pub async fn finish(mut self, manifest: Vec<u8>) -> Result<String, PlaceError> {
        match &self.store.backing {
            Backing::Objects(objects) => {
                // Somebody may have taken this writer for dead, and cleaned up behind it.
                let there = objects.list(&self.key("")).await?;
                if let Some((key, _)) = self.objects.iter().find(|object| !there.contains(object)) {
                    return Err(PlaceError::NotFound(format!("{key}, which was written just now")));
                }
                objects.put_at_once(&self.key(MANIFEST_NAME), manifest.into()).await?;
                Ok(self.folder)
            }
            Backing::Ipfs(node) => {
                self.files.push(node.add(MANIFEST_NAME, &manifest).await?);
                let cid = node.folder(&self.files).await?;
                node.pin(&cid, &format!("{}{}", self.store.root, self.folder)).await?;
                Ok(cid)
            }
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{}/{name}", self.store.root, self.folder)
    }
}
