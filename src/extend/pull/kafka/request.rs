//! The requests to brokers and their answers, each in a version that brokers from 0.11 to 4 speak.

use std::collections::BTreeMap;

use super::wire::{NotKafka, ValueReader, ValueWriter};

/// Codes of errors that mean something to a reader.
pub(super) const NO_ERROR: i16 = 0;
/// There is no message of this offset, because it was removed or the topic is another one.
pub(super) const OFFSET_OUT_OF_RANGE: i16 = 1;
/// The times by which the first and the last offset of a partition are asked for.
pub(super) const FIRST_OFFSETS: i64 = -2;
pub(super) const LAST_OFFSETS: i64 = -1;
/// Only messages of transactions that have ended well are handed out.
const READ_COMMITTED: i8 = 1;
/// A reader is no replica.
const NO_REPLICA: i32 = -1;

/// A request, without the head that the connection adds.
#[derive(Debug)]
pub(super) struct KafkaRequest {
    pub key: i16,
    pub version: i16,
    pub body: Vec<u8>,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Partition {
    pub topic: String,
    pub index: i32,
}

/// The brokers of a cluster, and the leaders of the partitions, as one of the brokers answers for `Metadata`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClusterMap {
    pub cluster: Option<String>,
    /// Host and port of every broker, by its number.
    pub brokers: BTreeMap<i32, (String, u16)>,
    /// The leader of every partition of the topics, or the code of the error why there is none.
    pub partitions: Vec<(Partition, Result<i32, i16>)>,
    /// Topics that cannot be read at all.
    pub refused: Vec<(String, i16)>,
}

/// The messages of one partition in the answer to a `Fetch`, or the code of the error that came in their place.
#[derive(Debug)]
pub(super) struct Fetched<'a> {
    pub partition: Partition,
    pub error: i16,
    /// Transactions that ended without effect: the number of the producer, and the first offset.
    pub aborted: Vec<(i64, i64)>,
    pub batches: &'a [u8],
}

/// Asks for the leaders of topics.
pub(super) fn metadata(topics: &[String]) -> KafkaRequest {
    let body = ValueWriter::default().list(topics, |written, topic| written.text(topic));
    // Topics are not made by asking for them.
    KafkaRequest { key: 3, version: 4, body: body.i8(0).0 }
}

pub(super) fn read_metadata(answer: &[u8]) -> Result<ClusterMap, NotKafka> {
    let mut reader = ValueReader(answer);
    let _throttled_ms = reader.i32()?;
    let brokers = reader.list(|reader| {
        let (number, host, port) = (reader.i32()?, reader.text()?.to_owned(), reader.i32()?);
        let _rack = reader.text_if_any()?;
        Ok((number, (host, u16::try_from(port).map_err(|_| NotKafka)?)))
    })?;
    let cluster = reader.text_if_any()?.map(str::to_owned);
    let _controller = reader.i32()?;
    let (mut partitions, mut refused) = (Vec::new(), Vec::new());
    reader.list(|reader| {
        let (error, topic) = (reader.i16()?, reader.text()?);
        let _is_internal = reader.i8()?;
        if error != NO_ERROR {
            refused.push((topic.to_owned(), error));
        }
        reader.list(|reader| {
            let (error, index, leader) = (reader.i16()?, reader.i32()?, reader.i32()?);
            let _replicas = (reader.list(ValueReader::i32)?, reader.list(ValueReader::i32)?);
            // A partition whose followers are missing has an error, and can be read all the same.
            let leader = if leader >= 0 { Ok(leader) } else { Err(error) };
            partitions.push((Partition { topic: topic.to_owned(), index }, leader));
            Ok(())
        })
    })?;
    Ok(ClusterMap { cluster, brokers: brokers.into_iter().collect(), partitions, refused })
}

/// Asks for the first or the last offsets of partitions.
pub(super) fn offsets(partitions: &[Partition], time: i64) -> KafkaRequest {
    let body = ValueWriter::default().i32(NO_REPLICA).i8(READ_COMMITTED);
    let body = body.list(partitions, |written, partition| {
        // The same topic may stand in several entries of the list.
        written.text(&partition.topic).i32(1).i32(partition.index).i64(time)
    });
    KafkaRequest { key: 2, version: 2, body: body.0 }
}

/// A partition and its offset, or the broker's code of the reason why there is none.
pub(super) type FoundOffset = (Partition, Result<i64, i16>);

/// Reads the answer to [`offsets`].
pub(super) fn read_offsets(answer: &[u8]) -> Result<Vec<FoundOffset>, NotKafka> {
    let mut reader = ValueReader(answer);
    let _throttled_ms = reader.i32()?;
    let mut found = Vec::new();
    reader.list(|reader| {
        let topic = reader.text()?;
        reader.list(|reader| {
            let (index, error, _time, offset) = (reader.i32()?, reader.i16()?, reader.i64()?, reader.i64()?);
            let offset = if error == NO_ERROR { Ok(offset.max(0)) } else { Err(error) };
            found.push((Partition { topic: topic.to_owned(), index }, offset));
            Ok(())
        })
    })?;
    Ok(found)
}

/// Asks for messages from these offsets on. The broker waits for so many milliseconds if there are none.
pub(super) fn fetch(
    places: &[(Partition, i64)],
    wait_ms: i32,
    bytes: i32,
    partition_bytes: i32,
) -> KafkaRequest {
    let body = ValueWriter::default().i32(NO_REPLICA).i32(wait_ms).i32(1).i32(bytes).i8(READ_COMMITTED);
    let body = body.list(places, |written, (partition, offset)| {
        written.text(&partition.topic).i32(1).i32(partition.index).i64(*offset).i32(partition_bytes)
    });
    KafkaRequest { key: 1, version: 4, body: body.0 }
}

pub(super) fn read_fetch(answer: &[u8]) -> Result<Vec<Fetched<'_>>, NotKafka> {
    let mut reader = ValueReader(answer);
    let _throttled_ms = reader.i32()?;
    let mut fetched = Vec::new();
    reader.list(|reader| {
        let topic = reader.text()?;
        reader.list(|reader| {
            let (index, error) = (reader.i32()?, reader.i16()?);
            let _last_offsets = (reader.i64()?, reader.i64()?);
            let aborted = reader.list(|reader| Ok((reader.i64()?, reader.i64()?)))?;
            let partition = Partition { topic: topic.to_owned(), index };
            fetched.push(Fetched { partition, error, aborted, batches: reader.bytes()? });
            Ok(())
        })
    })?;
    Ok(fetched)
}

/// Says by which mechanism a client shows who it is.
pub(super) fn sasl_handshake(mechanism: &str) -> KafkaRequest {
    KafkaRequest { key: 17, version: 1, body: ValueWriter::default().text(mechanism).0 }
}

/// The code of the error, and the mechanisms that the broker has.
pub(super) fn read_sasl_handshake(answer: &[u8]) -> Result<(i16, Vec<&str>), NotKafka> {
    let mut reader = ValueReader(answer);
    Ok((reader.i16()?, reader.list(ValueReader::text)?))
}

/// Name and password as SASL/PLAIN has them.
pub(super) fn sasl_plain(username: &str, password: &str) -> KafkaRequest {
    let token = format!("\0{username}\0{password}");
    KafkaRequest { key: 36, version: 0, body: ValueWriter::default().bytes(token.as_bytes()).0 }
}

/// The code of the error, and what the broker says to it.
pub(super) fn read_sasl_answer(answer: &[u8]) -> Result<(i16, Option<&str>), NotKafka> {
    let mut reader = ValueReader(answer);
    Ok((reader.i16()?, reader.text_if_any()?))
}

/// A code of an error in words.
pub(super) fn error_text(code: i16) -> String {
    let words = match code {
        OFFSET_OUT_OF_RANGE => "there is no such offset",
        3 => "there is no such topic or partition",
        5 => "it has no leader now",
        6 => "another broker has become the leader",
        9 => "a replica is not available",
        29 => "this client has no right to read the topic",
        31 => "this client has no right in the cluster",
        56 => "the broker cannot use its disk",
        74..=76 => "the leader is changing",
        _ => return format!("Kafka's error {code}"),
    };
    format!("{words} (Kafka's error {code})")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn leaders_are_read() {
        let broker = |written: ValueWriter, (number, host): &(i32, &str)| {
            written.i32(*number).text(host).i32(9092).i16(-1)
        };
        let answer =
            ValueWriter::default().i32(0).list(&[(1, "a"), (2, "b")], broker).text("id").i32(1).i32(2);
        // A topic with a partition that has a leader and one that has none, and a topic that is not there.
        let answer = answer.i16(0).text("t").i8(0).i32(2);
        let answer = answer.i16(9).i32(0).i32(2).list(&[1, 2], |written, at| written.i32(*at)).i32(0);
        let answer = answer.i16(5).i32(1).i32(-1).i32(0).i32(0);
        let answer = answer.i16(3).text("u").i8(0).i32(0).0;
        let read = read_metadata(&answer).expect("an answer");
        let partition = |index| Partition { topic: "t".into(), index };
        assert_eq!(read.cluster.as_deref(), Some("id"));
        assert_eq!(read.brokers.get(&2), Some(&("b".to_owned(), 9092)));
        assert_eq!(read.partitions, [(partition(0), Ok(2)), (partition(1), Err(5))]);
        assert_eq!(read.refused, [("u".to_owned(), 3)]);
    }

    #[test]
    fn requests_are_written_as_the_protocol_says() {
        assert_eq!(metadata(&["t".into()]).body, b"\0\0\0\x01\0\x01t\0");
        let places = [(Partition { topic: "t".into(), index: 2 }, 5)];
        let expected = b"\xff\xff\xff\xff\0\0\0\x07\0\0\0\x01\0\0\0\x08\x01\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x05\0\0\0\x09";
        assert_eq!(fetch(&places, 7, 8, 9).body, expected);
        assert_eq!(sasl_plain("u", "p").body, b"\0\0\0\x04\0u\0p");
    }

    proptest! {
        #[test]
        fn any_answers_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read_metadata(&bytes), read_offsets(&bytes), read_fetch(&bytes).map(|all| all.len()));
            let _ = (read_sasl_handshake(&bytes), read_sasl_answer(&bytes));
        }
    }
}
