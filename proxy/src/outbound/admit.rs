//! Which local process is on the other end, before a byte is read.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    command::OutboundRole,
    config::AllowedLocal,
    fault::{FAULT_HEADER, Fault},
    source::{LocalCaller, Refusal, SocketTable, Users, unix_caller},
    stream::LocalStream,
    worker::Worker,
};

/// How long a refused process gets to read why.
const LAST_WORD: std::time::Duration = std::time::Duration::from_millis(500);

/// Lets a connection through if its process is one that may use the listener.
///
/// # Errors
/// Who it is and who may.
pub(crate) fn admit(
    worker: &Worker,
    role: &OutboundRole,
    stream: &LocalStream,
    addresses: Option<(SocketAddr, SocketAddr)>,
) -> Result<(), Refusal> {
    let AllowedLocal::Uids(uids) = &role.allowed else { return Ok(()) };
    let caller = match (stream, addresses) {
        (LocalStream::Unix(stream), _) => unix_caller(stream)?,
        (LocalStream::Tcp(_), Some(addresses)) => tcp_caller(worker, addresses)?,
        (LocalStream::Tcp(_), None) => {
            return Err(Refusal::Unknown(std::io::ErrorKind::NotConnected.into()));
        }
    };
    Users(uids.clone()).admit(caller)
}

fn tcp_caller(worker: &Worker, (peer, local): (SocketAddr, SocketAddr)) -> Result<LocalCaller, Refusal> {
    let mut table = worker.sockets.borrow_mut();
    if table.is_none() {
        *table = Some(SocketTable::open().map_err(Refusal::Unknown)?);
    }
    let table = table.as_mut().ok_or_else(|| Refusal::Unknown(std::io::ErrorKind::NotFound.into()))?;
    table.caller(peer, local)
}

/// Whether the process that ended its side of a connection has closed it altogether: the two look alike on the wire, but
/// the kernel knows whether a process still holds the socket. What cannot be told counts as held.
pub(crate) fn is_gone(worker: &Worker, addresses: (SocketAddr, SocketAddr)) -> bool {
    matches!(tcp_caller(worker, addresses), Err(Refusal::Closed { .. }))
}

/// Tells a refused process why, once it has said something: an answer to nothing confuses clients. What it said is not
/// looked at. Without `named` it is told nothing but that it is refused.
pub(crate) async fn refuse(mut stream: LocalStream, refusal: &Refusal, http: bool, named: bool) {
    if !http {
        return;
    }
    let text = if named { format!("weft: {refusal}\n") } else { String::new() };
    let fault =
        if named { format!("{FAULT_HEADER}: {}\r\n", Fault::CallerRefused.label()) } else { String::new() };
    let response = format!(
        "HTTP/1.1 {} Forbidden\r\ncontent-type: text/plain\r\n{fault}content-length: {}\r\nconnection: close\r\n\r\n{text}",
        Fault::CallerRefused.facts().status,
        text.len()
    );
    let _ = tokio::time::timeout(LAST_WORD, async {
        let mut unread = [0; 1024];
        if stream.read(&mut unread).await? == 0 {
            return Ok(());
        }
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with bytes unread would reset the connection, and the answer with it.
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, std::io::Error>(())
    })
    .await;
}
