use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
};

use super::*;

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// A connection to a listener at `address`: the client's end, the accepted end, and both addresses as accepted.
fn connected(listen: &str, connect: &str) -> (TcpStream, TcpStream, SocketAddr, SocketAddr) {
    let listener = TcpListener::bind(listen).unwrap();
    let target: SocketAddr = format!("{connect}:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let client = TcpStream::connect(target).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    let local = accepted.local_addr().unwrap();
    (client, accepted, peer, local)
}

#[test]
fn the_peer_of_a_connection_is_found() {
    let mut table = SocketTable::open().unwrap();
    for (listen, connect) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1")] {
        let (_client, _accepted, peer, local) = connected(listen, connect);
        assert_eq!(table.caller(peer, local).unwrap(), LocalCaller { uid: own_uid() }, "{listen}");
    }
}

#[test]
fn a_dual_stack_client_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{port}").parse().unwrap();
    socket.connect(&mapped.into()).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    let caller = SocketTable::open().unwrap().caller(peer, accepted.local_addr().unwrap()).unwrap();
    assert_eq!(caller.uid, own_uid());
}

#[test]
fn a_half_closed_peer_is_still_known() {
    let (client, mut accepted, peer, local) = connected("127.0.0.1:0", "127.0.0.1");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    assert_eq!(SocketTable::open().unwrap().caller(peer, local).unwrap().uid, own_uid());
}

#[test]
fn a_peer_that_is_gone_is_refused() {
    let mut table = SocketTable::open().unwrap();
    let (client, mut accepted, peer, local) = connected("127.0.0.1:0", "127.0.0.1");
    drop(client);
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    // FIN_WAIT2 without an owner.
    assert!(matches!(table.caller(peer, local), Err(Refusal::Closed { .. })));
    drop(accepted);
    // TIME_WAIT, or nothing at all.
    let refusal = table.caller(peer, local).unwrap_err();
    assert!(matches!(refusal, Refusal::Closed { .. } | Refusal::NotLocal { .. }), "{refusal}");
}

#[test]
fn a_listener_on_the_peers_port_does_not_answer_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap();
    let refusal = SocketTable::open().unwrap().caller(peer, ([127, 0, 0, 1], 9).into()).unwrap_err();
    assert!(matches!(refusal, Refusal::NotLocal { .. }), "{refusal}");
}

#[test]
fn a_peer_of_another_host_is_refused() {
    let refusal = SocketTable::open()
        .unwrap()
        .caller(([192, 0, 2, 1], 4000).into(), ([127, 0, 0, 1], 15001).into())
        .unwrap_err();
    assert_eq!(refusal.to_string(), "192.0.2.1:4000 is no socket of this host and network namespace");
}

#[test]
fn a_table_answers_again_and_again() {
    let mut table = SocketTable::open().unwrap();
    let (mut client, _accepted, peer, local) = connected("127.0.0.1:0", "127.0.0.1");
    client.write_all(b"x").unwrap();
    for _ in 0..100 {
        assert!(table.caller(peer, local).is_ok());
        assert!(table.caller(local, ([127, 0, 0, 1], 1).into()).is_err());
    }
}

#[test]
fn a_refusal_names_the_user() {
    let refusal = Users(vec![1000, 1001]).admit(LocalCaller { uid: 33 }).unwrap_err();
    assert_eq!(refusal.to_string(), "user 33 may not use this listener, which is for users 1000, 1001");
    assert!(Users(vec![33]).admit(LocalCaller { uid: 33 }).is_ok());
    assert_eq!(Users(Vec::new()).to_string(), "nobody");
}

#[tokio::test]
async fn the_peer_of_a_unix_socket_is_known() {
    let (one, _other) = UnixStream::pair().unwrap();
    assert_eq!(unix_caller(&one).unwrap().uid, own_uid());
}
