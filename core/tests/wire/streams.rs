//! Hello and answer over a stream, with the next protocol right behind.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use weft_core::wire::{
    Answer, WireError,
    exchange::{ExchangeError, read_answer, read_hello, write_answer, write_hello},
};

use crate::golden::full_hello;

#[tokio::test]
async fn exactly_the_frame_is_taken_from_the_stream() {
    for capacity in [1, 7, 64, 8192] {
        let (mut near, mut far) = duplex(capacity);
        let caller = async {
            write_hello(&mut near, &full_hello()).await.unwrap();
            near.write_all(b"PRI * HTTP/2.0").await.unwrap();
            let answer = read_answer(&mut near).await.unwrap();
            let mut next = [0; 8];
            near.read_exact(&mut next).await.unwrap();
            (answer, next)
        };
        let called = async {
            let hello = read_hello(&mut far).await.unwrap();
            let mut next = [0; 14];
            far.read_exact(&mut next).await.unwrap();
            write_answer(&mut far, &Answer::Accepted { version: 1 }).await.unwrap();
            far.write_all(b"settings").await.unwrap();
            (hello, next)
        };
        let ((answer, after_answer), (hello, after_hello)) = tokio::join!(caller, called);
        assert_eq!((hello, &after_hello), (full_hello(), b"PRI * HTTP/2.0"));
        assert_eq!((answer, &after_answer), (Answer::Accepted { version: 1 }, b"settings"));
    }
}

#[tokio::test]
async fn a_stream_that_ends_early_or_speaks_something_else_is_told_apart() {
    let (mut near, mut far) = duplex(64);
    near.write_all(b"WEFT\x01\x00").await.unwrap();
    drop(near);
    let error = read_hello(&mut far).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Stream(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    let (mut near, mut far) = duplex(64);
    near.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let error = read_hello(&mut far).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Wire(WireError::Magic(found)) if &found == b"GET "));
}
