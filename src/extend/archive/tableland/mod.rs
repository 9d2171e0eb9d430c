//! Archives in a table of Tableland: a database whose tables are changed by transactions on a chain of Ethereum's kind, and
//! read from any of its validators.
//!
//! An object is rows of the table, each with a part of at most 768 bytes in base64, because a cell holds one
//! kilobyte. As many rows as fit go into one statement, and each statement is one transaction. What fits into one
//! statement is there as a whole or not at all.
//!
//! The node has no key of a wallet: it asks a signer for each transaction, by the method `eth_sendTransaction`.

mod answer;
mod contract;
mod statement;

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

pub use answer::{
    read_objects, read_parts, read_receipt, read_refusal as read_tableland_refusal, read_result, read_status,
};
pub use contract::{ChainAddress, TableName};

use super::definition::TablelandPlace;
use super::error::PlaceError;
use super::s3::read_body;
use crate::extend::outgoing::told;
use contract::{call_data, quantity, with_reserve};
use statement::{count_statement, delete_statement, insert_statements, parts_statement};

/// Longest time of one request, in microseconds.
const TABLE_REQUEST_US_MAX: u64 = 60_000_000;
/// Time between two questions about a transaction, in microseconds.
const TRANSACTION_LOOK_US: u64 = 500_000;
/// Most questions about a transaction: those of a quarter of an hour. Chains take from a second to some minutes.
const TRANSACTION_LOOKS_MAX: u32 = 1_800;
/// Number of times that a question is put to a validator which answers that there were too many.
const QUESTIONS_MAX: u32 = 20;
/// Waiting time after such an answer, in microseconds. Validators take ten questions a second.
const QUESTION_AGAIN_US: u64 = 1_000_000;
/// Largest answer other than the content of an object, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most bytes of the frames of one archive. They take some fifty transactions.
const ARCHIVE_BYTES_MAX: u64 = 1024 * 1024;

/// A table, the validator that reads it, and the signer of the transactions that change it.
pub struct Tableland {
    client: Client,
    place: TablelandPlace,
    authorization: Option<String>,
}

impl Tableland {
    /// The table of a place. Reads the secret from the environment.
    pub fn new(client: Client, place: &TablelandPlace) -> Result<Tableland, PlaceError> {
        let authorization = match &place.authorization {
            Some(name) => {
                let lack = || PlaceError::Refused(name.lack().unwrap_or_default());
                Some(name.read().ok_or_else(lack)?)
            }
            None => None,
        };
        Ok(Tableland { client, place: place.clone(), authorization })
    }

    /// Refuses an archive whose frames have more bytes than a table should get.
    pub fn check_size(bytes: u64) -> Result<(), PlaceError> {
        match bytes <= ARCHIVE_BYTES_MAX {
            true => Ok(()),
            false => Err(PlaceError::Refused(format!(
                "the frames have {bytes} bytes or more, and at most {ARCHIVE_BYTES_MAX} are written to a table: \
                 use a narrower pattern"
            ))),
        }
    }

    /// Puts an object. One of several statements is incomplete until the last of them is in the table.
    pub async fn put(&self, key: &str, body: &[u8]) -> Result<(), PlaceError> {
        for statement in insert_statements(&self.place.table, key, body) {
            self.execute(&statement).await?;
        }
        Ok(())
    }

    /// Puts an object as a whole or not at all. It is refused if it does not fit into one statement.
    pub async fn put_at_once(&self, key: &str, body: &[u8]) -> Result<(), PlaceError> {
        match insert_statements(&self.place.table, key, body).as_slice() {
            [statement] => self.execute(statement).await,
            statements => Err(PlaceError::Refused(format!(
                "{key} takes {} transactions, and must be written by one: use a narrower pattern",
                statements.len()
            ))),
        }
    }

    /// Gets an object of at most `bytes_max` bytes.
    pub async fn get(&self, key: &str, bytes_max: usize) -> Result<Bytes, PlaceError> {
        let rows = self.query(&parts_statement(&self.place.table, key), 2 * bytes_max + 4096).await?;
        let rows = rows.ok_or_else(|| PlaceError::NotFound(key.into()))?;
        let parts = read_parts(&rows);
        let object =
            parts.ok_or_else(|| PlaceError::Refused(format!("parts of {key} are missing or damaged")))?;
        match object.len() <= bytes_max {
            true => Ok(object.into()),
            false => Err(PlaceError::Refused(format!(
                "{key} has more than the {bytes_max} bytes that it may have"
            ))),
        }
    }

    /// Deletes an object, if it is there.
    pub async fn delete(&self, key: &str) -> Result<(), PlaceError> {
        self.execute(&delete_statement(&self.place.table, key)).await
    }

    /// Names and sizes of all objects whose names begin like this.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, PlaceError> {
        let rows = self.query(&count_statement(&self.place.table, prefix), ANSWER_BYTES_MAX).await?;
        let Some(rows) = rows else { return Ok(Vec::new()) };
        let objects = read_objects(&rows);
        let mut objects =
            objects.ok_or_else(|| PlaceError::Refused("the list of objects cannot be read".into()))?;
        objects.retain(|(key, _)| key.starts_with(prefix));
        Ok(objects)
    }

    /// Asks the validator. Returns the rows as JSON; `None` if there are none.
    async fn query(&self, statement: &str, bytes_max: usize) -> Result<Option<Bytes>, PlaceError> {
        let statement = utf8_percent_encode(statement, NON_ALPHANUMERIC);
        match self.ask(&format!("query?format=objects&statement={statement}"), bytes_max).await? {
            (StatusCode::OK, rows) => Ok((rows.trim_ascii() != b"[]").then_some(rows)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, answer) => Err(refused("the validator", status, &answer)),
        }
    }

    /// Puts a question to the validator, again and again while it says that there were too many.
    async fn ask(&self, path: &str, bytes_max: usize) -> Result<(StatusCode, Bytes), PlaceError> {
        let url = format!("{}/api/v1/{path}", self.place.api);
        for _ in 1..QUESTIONS_MAX {
            match send(self.client.get(&url), bytes_max).await? {
                (StatusCode::TOO_MANY_REQUESTS, _) => sleep(Duration::from_micros(QUESTION_AGAIN_US)).await,
                answered => return Ok(answered),
            }
        }
        send(self.client.get(&url), bytes_max).await
    }

    /// Lets a statement change the table, and waits until it has.
    async fn execute(&self, statement: &str) -> Result<(), PlaceError> {
        let table = &self.place.table;
        let chain = self.call("eth_chainId", json!([])).await?;
        if quantity(&chain) != Some(table.chain.into()) {
            let why = format!("the signer is on chain {chain}, and the table {table} on {:#x}", table.chain);
            return Err(PlaceError::Refused(why));
        }
        let mut transaction = json!({
            "from": self.place.from.to_string(),
            "to": self.place.registry.to_string(),
            "data": call_data(&self.place.from, table.id, statement),
        });
        let gas = self.call("eth_estimateGas", json!([transaction])).await?;
        transaction["gas"] = with_reserve(&gas).ok_or_else(|| unreadable("eth_estimateGas"))?.into();
        transaction["gasPrice"] = self.call("eth_gasPrice", json!([])).await?;
        let hash = self.call("eth_sendTransaction", json!([transaction])).await?;
        let hash = hash.as_str().filter(|hash| contract::is_hash(hash));
        self.finish(hash.ok_or_else(|| unreadable("eth_sendTransaction"))?).await
    }

    /// Waits until the validator has taken in a transaction.
    async fn finish(&self, hash: &str) -> Result<(), PlaceError> {
        let path = format!("receipt/{}/{hash}", self.place.table.chain);
        for _ in 0..TRANSACTION_LOOKS_MAX {
            match self.ask(&path, ANSWER_BYTES_MAX).await? {
                (StatusCode::OK, answer) => {
                    let receipt =
                        read_receipt(&answer).ok_or_else(|| unreadable("the validator's receipt"))?;
                    return receipt
                        .map_err(|error| PlaceError::Refused(format!("transaction {hash}: {error}")));
                }
                (StatusCode::NOT_FOUND, _) => {}
                (status, answer) => return Err(refused("the validator", status, &answer)),
            }
            // The validator never hears of a transaction that the contract has taken back.
            let receipt = self.call("eth_getTransactionReceipt", json!([hash])).await?;
            if read_status(&receipt) == Some(false) {
                return Err(PlaceError::Refused(format!("transaction {hash} was reverted by the contract")));
            }
            sleep(Duration::from_micros(TRANSACTION_LOOK_US)).await;
        }
        Err(PlaceError::Unreachable(format!(
            "transaction {hash} is not in the table after a quarter of an hour"
        )))
    }

    /// Calls a method of the signer.
    async fn call(&self, method: &str, params: Value) -> Result<Value, PlaceError> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut request =
            self.client.post(&self.place.rpc).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let (status, answer) = send(request, ANSWER_BYTES_MAX).await?;
        match read_result(&answer) {
            Some(Ok(result)) => Ok(result),
            Some(Err(why)) => Err(PlaceError::Refused(format!("the signer, {method}: {why}"))),
            None => Err(refused("the signer", status, &answer)),
        }
    }
}

/// Sends a request, and reads an answer of at most `bytes_max` bytes.
async fn send(request: RequestBuilder, bytes_max: usize) -> Result<(StatusCode, Bytes), PlaceError> {
    let sent = request.timeout(Duration::from_micros(TABLE_REQUEST_US_MAX)).send().await;
    let answer = sent.map_err(|error| PlaceError::Unreachable(told(&error)))?;
    let status = answer.status();
    Ok((status, read_body(answer, bytes_max).await?))
}

fn refused(who: &str, status: StatusCode, answer: &[u8]) -> PlaceError {
    let why = format!("{who}: {status} {}", read_tableland_refusal(answer).unwrap_or_default());
    match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        true => PlaceError::Unreachable(why),
        false => PlaceError::Refused(why),
    }
}

fn unreadable(what: &str) -> PlaceError {
    PlaceError::Refused(format!("the answer of {what} cannot be read"))
}
