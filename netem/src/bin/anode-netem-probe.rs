//! The far end of the probes that measure links: sends back every datagram and every byte that comes to an address.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::ExitCode;

use anode_loadgen::Outcome;

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_default();
    match serve(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anode-netem-probe {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str) -> Outcome<()> {
    let (datagrams, streams) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
    std::thread::spawn(move || {
        for mut stream in streams.incoming().flatten() {
            let mut buffer = [0; 2_048];
            while let Ok(bytes) = stream.read(&mut buffer)
                && bytes > 0
                && stream.write_all(&buffer[..bytes]).is_ok()
            {}
        }
    });
    println!("ready");
    let mut buffer = [0; 2_048];
    loop {
        let (bytes, from) = datagrams.recv_from(&mut buffer)?;
        // What cannot be sent back is missing at the other end, which notices.
        let _ = datagrams.send_to(&buffer[..bytes], from);
    }
}
