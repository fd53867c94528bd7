//! How long a change takes from the server's word that it has it until calls through the agent show it.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use weft_agent::announcer::own_address;
use weft_testbed::Call;

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two calls that look for it.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// What calls show when a change is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The application on this port answers.
    Answers(u16),
    /// Nobody does: the only endpoint is gone.
    Gone,
}

/// Two applications, between which endpoints are moved.
pub(crate) struct Applications {
    pub(crate) addresses: [SocketAddr; 2],
}

impl Applications {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let host = host();
        Ok(Self { addresses: [serve(host)?, serve(host)?] })
    }
}

/// Calls `service` until the sign shows, and says how long that took.
pub(crate) fn until(outbound: SocketAddr, service: &str, sign: Sign) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let seen = call(outbound, service);
        if seen == Some(sign) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > PATIENCE {
            bail!("calls to {service} do not show {sign:?} after {PATIENCE:?}, but {seen:?}");
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn call(outbound: SocketAddr, service: &str) -> Option<Sign> {
    let call = Call::new("GET", format!("http://{outbound}/")).host(&format!("{service}.mesh"));
    let answer = call.send().ok()?;
    match answer.status {
        200 => Some(Sign::Answers(answer.text().parse().ok()?)),
        _ => Some(Sign::Gone),
    }
}

/// An address that Kubernetes takes for an endpoint's, where this machine has one.
fn host() -> IpAddr {
    own_address().filter(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Answers every request with its own port.
fn serve(host: IpAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((host, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut request = [0; 4096];
                // A request without a body fits one segment here; who sends otherwise is not answered.
                let _read = stream.read(&mut request);
                let body = address.port().to_string();
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                let _written = stream.write_all(answer.as_bytes());
            });
        }
    });
    Ok(address)
}
