//! One source address must not use up what all share.

use std::{io::Read, net::TcpStream, time::Duration};

use crate::{
    callers::Far,
    rogue::{Rogue, connect},
    support::until,
};

/// Handshakes under way per source address and worker.
const LIMIT: usize = 256;

#[test]
fn a_flood_from_one_address_leaves_the_others_alone() {
    let far = Far::start_with(|mesh| mesh.settings = "workers = 1\n".into());
    let good = Rogue::new(Some(&far.leaf("client"))).from([127, 0, 0, 2]);
    far.must_answer(&good);
    // What is closed at once is so before a silent handshake is given up, after five seconds. A busy machine may be late
    // itself, but not each time.
    let flood = |from: [u8; 4]| {
        let begun = |_| connect(far.mesh.inbound("far"), Some(from.into())).unwrap();
        let flood: Vec<TcpStream> = (0..LIMIT + 50).map(begun).collect();
        let last = flood.last().unwrap();
        last.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
        let is_closed = (&*last).read(&mut [0]).is_ok_and(|read| read == 0);
        is_closed.then_some((from, flood))
    };
    let flooded = [3, 4, 5].into_iter().find_map(|host| flood([127, 0, 0, host]));
    let (address, flood) = flooded.expect("beyond the limit a connection is closed at once");
    far.must_answer(&good);
    let flooder = Rogue::new(Some(&far.leaf("client"))).from(address);
    // The silent ones are closed after a while, and give their slots back.
    until("the address is served again", || {
        let mut tunnel =
            flooder.dial(far.mesh.inbound("far"), &crate::support::mesh::identity("echo")).ok()?;
        tunnel.greet(&far.hello()).ok()
    });
    let first = flood.first().unwrap();
    assert_eq!((&*first).read(&mut [0]).unwrap(), 0, "a silent connection is closed");
}
