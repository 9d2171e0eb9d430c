//! The two questions that the runner has for Cassandra itself: whether it is there, and to remove a keyspace. They are
//! asked in version 4 of the native protocol, with a login where it is wanted, and without TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anode_loadgen::Outcome;

/// How long an answer may take. The removal of a keyspace removes its files, too.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u32 = 1 << 20;
/// Version of the protocol in requests.
const VERSION: u8 = 4;

const ERROR: u8 = 0x00;
const STARTUP: u8 = 0x01;
const READY: u8 = 0x02;
const AUTHENTICATE: u8 = 0x03;
const OPTIONS: u8 = 0x05;
const SUPPORTED: u8 = 0x06;
const QUERY: u8 = 0x07;
const RESULT: u8 = 0x08;
const AUTH_RESPONSE: u8 = 0x0f;
const AUTH_SUCCESS: u8 = 0x10;
/// Consistency level of a query.
const ONE: u16 = 1;

/// A name and the password that goes with it.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// Returns when a node of Cassandra has answered.
pub fn ask(at: SocketAddr) -> Outcome<()> {
    let mut stream = connect(at)?;
    request(&mut stream, OPTIONS, &[], &[SUPPORTED])?;
    Ok(())
}

/// Removes a keyspace, if it is there.
pub fn remove(at: SocketAddr, login: Option<&Login>, keyspace: &str) -> Outcome<()> {
    let mut stream = connect(at)?;
    if request(&mut stream, STARTUP, &startup(), &[READY, AUTHENTICATE])? == AUTHENTICATE {
        let login = login.ok_or("a login is needed")?;
        request(&mut stream, AUTH_RESPONSE, &plain(login), &[AUTH_SUCCESS])?;
    }
    request(&mut stream, QUERY, &query(&format!("DROP KEYSPACE IF EXISTS {keyspace}")), &[RESULT])?;
    Ok(())
}

fn connect(at: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Sends a request, reads its answer, which must be of a kind that is wanted, and returns the kind.
fn request(stream: &mut (impl Read + Write), opcode: u8, body: &[u8], wanted: &[u8]) -> Outcome<u8> {
    let mut frame = vec![VERSION, 0, 0, 0, opcode];
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame)?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    if length > ANSWER_BYTES_MAX {
        return Err(format!("an answer of {length} bytes is not one of Cassandra's").into());
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    match head[4] {
        opcode if wanted.contains(&opcode) => Ok(opcode),
        // An error has a number of four bytes and the length of its text before the text.
        ERROR => Err(String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned().into()),
        other => Err(format!("an answer of the kind {other:#04x}").into()),
    }
}

/// Returns the body of a STARTUP: a map with one pair of strings.
fn startup() -> Vec<u8> {
    let mut body = 1_u16.to_be_bytes().to_vec();
    for text in ["CQL_VERSION", "3.0.0"] {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    body
}

/// Returns the body of an AUTH_RESPONSE for logins by name and password: each stands behind a zero byte.
fn plain(login: &Login) -> Vec<u8> {
    let token = format!("\0{}\0{}", login.user, login.password);
    let mut body = (token.len() as u32).to_be_bytes().to_vec();
    body.extend_from_slice(token.as_bytes());
    body
}

/// Returns the body of a QUERY: the statement, the consistency level, and no flags.
fn query(statement: &str) -> Vec<u8> {
    let mut body = (statement.len() as u32).to_be_bytes().to_vec();
    body.extend_from_slice(statement.as_bytes());
    body.extend_from_slice(&ONE.to_be_bytes());
    body.push(0);
    body
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A peer that has its answer ready, and keeps what it is sent.
    struct Peer(Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn answer(opcode: u8, body: &[u8]) -> Peer {
        let mut frame = vec![0x84, 0, 0, 0, opcode, 0, 0, 0, body.len() as u8];
        frame.extend_from_slice(body);
        Peer(Cursor::new(frame), Vec::new())
    }

    #[test]
    fn requests_are_frames_of_version_4() {
        let mut peer = answer(READY, &[]);
        request(&mut peer, STARTUP, &startup(), &[READY]).expect("the answer");
        assert_eq!(peer.1, b"\x04\0\0\0\x01\0\0\0\x16\0\x01\0\x0bCQL_VERSION\0\x053.0.0");
        assert_eq!(query("USE k"), b"\0\0\0\x05USE k\0\x01\0");
        let login = Login { user: "u".to_owned(), password: "pw".to_owned() };
        assert_eq!(plain(&login), b"\0\0\0\x05\0u\0pw");
    }

    #[test]
    fn answers_that_are_not_wanted_are_errors_with_their_reason() {
        let told =
            |mut peer: Peer| request(&mut peer, QUERY, &[], &[RESULT]).expect_err("an error").to_string();
        assert_eq!(told(answer(ERROR, b"\0\0\x22\0\0\x08no right")), "no right");
        assert_eq!(told(answer(ERROR, b"\0")), "");
        assert!(told(answer(READY, b"")).contains("0x02"));
        let long = Peer(Cursor::new(vec![0x84, 0, 0, 0, RESULT, 0xff, 0, 0, 0]), Vec::new());
        assert!(told(long).contains("4278190080 bytes"));
        assert!(told(Peer(Cursor::new(vec![0x84]), Vec::new())).contains("fill"));
    }
}
