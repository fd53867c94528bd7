//! Hello and answer over a stream.
//!
//! Reading takes two to four reads, each for exactly the bytes that are still missing, so that nothing of what follows
//! the frame is taken. The caller sets the deadline (5 s for a hello).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Answer, FrameDecoder, HEADER_LENGTH, Hello, Step, WireError};

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The stream failed or ended.
    #[error("the connection failed before the frame was complete: {0}")]
    Stream(#[from] io::Error),
    /// What came is not the message.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Reads a hello.
///
/// # Errors
/// When the stream fails or ends, or what comes is no hello; [`WireError`] asks for [`Answer::Malformed`].
pub async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, ExchangeError> {
    let (version, payload) = read_frame(stream).await?;
    Ok(Hello::from_payload(version, &payload)?)
}

/// Reads an answer.
///
/// # Errors
/// When the stream fails or ends, or what comes is no answer.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<Answer, ExchangeError> {
    let (version, payload) = read_frame(stream).await?;
    Ok(Answer::from_payload(version, &payload)?)
}

/// Writes a hello and flushes.
///
/// # Errors
/// When the hello is too long, or the stream fails.
pub async fn write_hello(stream: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> Result<(), ExchangeError> {
    stream.write_all(&hello.encode()?).await?;
    Ok(stream.flush().await?)
}

/// Writes an answer and flushes.
///
/// # Errors
/// When the stream fails.
pub async fn write_answer(stream: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    stream.write_all(&answer.encode()).await?;
    stream.flush().await
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>), ExchangeError> {
    let mut decoder = FrameDecoder::default();
    let mut buffer = vec![0; HEADER_LENGTH];
    let mut wanted = HEADER_LENGTH;
    loop {
        buffer.resize(wanted, 0);
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match decoder.feed(&mut &buffer[..count])? {
            Step::Missing(missing) => wanted = missing,
            Step::Frame { version, payload } => return Ok((version, payload)),
        }
    }
}
