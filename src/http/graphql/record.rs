//! Records as the schema shows them, and pages of them in the style of Relay.

use async_graphql::{ComplexObject, Context, Object, Result, SimpleObject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::errors::refused;
use super::pages::{self, FoundPage, HistoryAsked, page_cost};
use super::requester::Requester;
use super::types::{JsonText, Micros};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{Payload, Record, SharedRecord};

/// One value of one source, or the deletion of the source.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(name = "Record", complex)]
pub(super) struct GraphqlRecord {
    /// Name of the source.
    source: String,
    /// Timestamp of the record.
    ts: Micros,
    /// Name of the node that accepted the record from its publisher.
    origin: String,
    #[graphql(skip)]
    data: RecordData,
}

/// The data of a record.
#[derive(Clone, Debug)]
pub(super) enum RecordData {
    /// The text of one JSON value.
    Json(Bytes),
    /// Bytes that were published as such.
    Binary(Bytes),
    /// Bytes, written as base64 already.
    Base64(String),
    /// The record is a deletion, or its time to live has ended.
    Deleted,
    /// The source has a record that the filter of the subscription does not let through.
    Gone,
}

#[ComplexObject]
impl GraphqlRecord {
    /// The data, if it is JSON; null for bytes and deletions, too.
    async fn data(&self, context: &Context<'_>) -> Result<Option<JsonText>> {
        let RecordData::Json(bytes) = &self.data else { return Ok(None) };
        charge(context, bytes.len())?;
        let text =
            std::str::from_utf8(bytes).map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        Ok(Some(JsonText(text.to_owned())))
    }

    /// The data in standard base64, if it is not JSON.
    async fn data_b64(&self, context: &Context<'_>) -> Result<Option<String>> {
        match &self.data {
            RecordData::Binary(bytes) => {
                charge(context, bytes.len().div_ceil(3) * 4)?;
                Ok(Some(STANDARD.encode(bytes)))
            }
            RecordData::Base64(text) => {
                charge(context, text.len())?;
                Ok(Some(text.clone()))
            }
            RecordData::Json(_) | RecordData::Deleted | RecordData::Gone => Ok(None),
        }
    }

    /// Whether the record deletes its source, or its time to live has ended.
    async fn deleted(&self) -> bool {
        matches!(self.data, RecordData::Deleted)
    }

    /// In subscriptions with a filter: the newest record of the source does not match any longer. It has no data and no
    /// origin here.
    async fn gone(&self) -> bool {
        matches!(self.data, RecordData::Gone)
    }

    /// The records that were the latest of the source at this node, the newest first.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn history(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Most records of the page.", default_with = "Some(100)")] first: Option<i32>,
        #[graphql(desc = "Cursor behind which the page begins.")] after: Option<String>,
        #[graphql(desc = "Least timestamp.")] from: Option<Micros>,
        #[graphql(desc = "Greatest timestamp.")] to: Option<Micros>,
    ) -> Result<RecordConnection> {
        let requester = Requester::of(context)?;
        let asked = HistoryAsked { source: self.source.clone(), first, after, from, to };
        let found = pages::history(requester, asked).await;
        found.map(RecordConnection::from).map_err(|refusal| refused(requester.app(), refusal))
    }
}

/// Counts the memory of data in the answer to a request.
fn charge(context: &Context<'_>, bytes: usize) -> Result<()> {
    let requester = Requester::of(context)?;
    requester.charge(bytes).map_err(|refusal| refused(requester.app(), refusal))
}

impl GraphqlRecord {
    /// A record that came as a message to a subscriber.
    pub(super) fn new(source: String, ts: u64, origin: String, data: RecordData) -> GraphqlRecord {
        GraphqlRecord { source, ts: Micros(ts), origin, data }
    }
}

impl From<&Record> for GraphqlRecord {
    fn from(record: &Record) -> GraphqlRecord {
        let data = match &record.payload {
            Payload::Json(bytes) => RecordData::Json(bytes.clone()),
            Payload::Binary(bytes) => RecordData::Binary(bytes.clone()),
            Payload::Deleted => RecordData::Deleted,
        };
        let origin = record.birth.origin.as_str().to_owned();
        GraphqlRecord::new(record.source.as_str().to_owned(), record.stamp.ts, origin, data)
    }
}

/// A page of records, in the style of Relay.
#[derive(Clone, Debug, Default)]
pub(super) struct RecordConnection {
    edges: Vec<RecordEdge>,
    has_next_page: bool,
    has_previous_page: bool,
}

impl From<FoundPage> for RecordConnection {
    fn from(found: FoundPage) -> RecordConnection {
        let FoundPage { records, has_next_page, has_previous_page } = found;
        let edge = |(cursor, record): (String, SharedRecord)| RecordEdge {
            cursor,
            node: GraphqlRecord::from(&*record),
        };
        let edges = records.into_iter().map(edge).collect();
        RecordConnection { edges, has_next_page, has_previous_page }
    }
}

/// A page of records, in the style of Relay.
#[Object]
impl RecordConnection {
    /// The records with their cursors.
    async fn edges(&self) -> &[RecordEdge] {
        &self.edges
    }

    /// The records without their cursors.
    async fn nodes(&self) -> Vec<&GraphqlRecord> {
        self.edges.iter().map(|edge| &edge.node).collect()
    }

    /// Where the page begins and ends.
    async fn page_info(&self) -> GraphqlPageInfo {
        let cursor = |edge: Option<&RecordEdge>| edge.map(|edge| edge.cursor.clone());
        GraphqlPageInfo {
            has_next_page: self.has_next_page,
            has_previous_page: self.has_previous_page,
            start_cursor: cursor(self.edges.first()),
            end_cursor: cursor(self.edges.last()),
        }
    }
}

/// A record of a page, with its place.
#[derive(SimpleObject, Clone, Debug)]
pub(super) struct RecordEdge {
    /// The place behind which the next page begins.
    cursor: String,
    /// The record at this place.
    node: GraphqlRecord,
}

/// Where a page begins and ends.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(name = "PageInfo")]
pub(super) struct GraphqlPageInfo {
    /// Whether there is more behind the page.
    has_next_page: bool,
    /// Whether the page was asked for by a cursor, so that there is something before it.
    has_previous_page: bool,
    /// Cursor of the first record of the page; null if it is empty.
    start_cursor: Option<String>,
    /// Cursor of the last record of the page; null if it is empty.
    end_cursor: Option<String>,
}
