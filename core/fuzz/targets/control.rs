//! Words of the control stream from any bytes: no panic, and what was understood is written and read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use weft_core::{
    control::{
        ResumePoint,
        discovery::{Relayed, encode_replace, read_event, read_scope},
        message::{ClientMessage, Discovery, JoinRequest, JoinResponse, ServerMessage},
    },
    name::RegistryName,
    registry::{Event, Resume, Scope},
};

fuzz_target!(|bytes: &[u8]| {
    let scope = Scope::whole(RegistryName::new("static").unwrap());
    if let Ok(Relayed::Event(Event::Replace { origin, resources, faults, .. })) =
        read_event(&scope, &bytes.to_vec().into())
    {
        let again = encode_replace(origin.as_str(), &resources, &faults);
        let read = read_event(&scope, &again.event).unwrap();
        let Relayed::Event(Event::Replace { resources: read, .. }) = read else { panic!("{read:?}") };
        assert_eq!(read, resources);
    }
    let _ = ResumePoint::from_resume(&Resume(bytes.to_vec().into()));
    let _ = ClientMessage::decode(bytes);
    let _ = ServerMessage::decode(bytes);
    let _ = JoinRequest::decode(bytes);
    let _ = JoinResponse::decode(bytes);
    if let Ok(batch) = Discovery::decode(bytes) {
        let _ = read_scope(&batch);
    }
});
