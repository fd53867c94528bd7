//! The hello: what the caller wants to reach, and on whose behalf.
//!
//! It informs; only the certificate authorizes. Labels from a hello are for telemetry and no input of policy.

use std::net::SocketAddr;

use prost::Message as _;

use super::{
    FrameDecoder, MAX_PAYLOAD, OUR_VERSIONS, Step, VersionRange, WireError,
    frame::encode_frame,
    pairs::{self, Pair},
};
use crate::{
    name::{InstanceName, ServiceName, WorkloadName},
    resource::Labels,
};

/// The first thing a caller sends on a mesh connection, except on `weft-mux/1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The service, as the called side's registry names it.
    pub service: ServiceName,
    /// The application's own port at that instance, from 1.
    pub port: u16,
    /// The instance that the caller picked; none when any will do (a gateway that only forwards).
    pub instance: Option<InstanceName>,
    /// Labels that the instance must carry when none is named; empty means any.
    pub subset: Labels,
    /// The caller's name for itself.
    pub source_workload: Option<WorkloadName>,
    /// The caller's labels. They may be missing, all or some, when the frame would be too long.
    pub source_labels: Labels,
    /// On `weft-tcp/1`: whom the application dialled.
    pub original_address: Option<SocketAddr>,
    /// On `weft-tcp/1`: the trace that the connection belongs to.
    pub trace_context: Option<TraceContext>,
    /// What the caller speaks.
    pub versions: VersionRange,
}

/// W3C Trace Context, as text; whoever uses it checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The header `traceparent`.
    pub parent: String,
    /// The header `tracestate`; empty when there is none. Dropped when the frame would be too long.
    pub state: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawHello {
    #[prost(uint32, tag = "1")]
    lowest_version: u32,
    #[prost(uint32, tag = "2")]
    highest_version: u32,
    #[prost(string, tag = "3")]
    service: String,
    #[prost(uint32, tag = "4")]
    port: u32,
    #[prost(string, tag = "5")]
    instance: String,
    #[prost(message, repeated, tag = "6")]
    subset: Vec<Pair>,
    #[prost(string, tag = "7")]
    source_workload: String,
    #[prost(message, repeated, tag = "8")]
    source_labels: Vec<Pair>,
    #[prost(string, tag = "9")]
    original_address: String,
    #[prost(string, tag = "10")]
    trace_parent: String,
    #[prost(string, tag = "11")]
    trace_state: String,
}

impl Hello {
    /// A hello for one port of a service and nothing else, in all versions of this build.
    #[must_use]
    pub fn new(service: ServiceName, port: u16) -> Self {
        Self {
            service,
            port,
            instance: None,
            subset: Labels::default(),
            source_workload: None,
            source_labels: Labels::default(),
            original_address: None,
            trace_context: None,
            versions: OUR_VERSIONS,
        }
    }

    /// The frame. When it would be longer than 4 KiB, source labels are left out, the last first, and then the trace
    /// state; what says where to and on whose behalf never is.
    ///
    /// # Errors
    /// When it is too long even so: by the labels of `subset`, or by a trace parent that is none.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut raw = self.to_raw();
        while raw.encoded_len() > MAX_PAYLOAD && raw.source_labels.pop().is_some() {}
        if raw.encoded_len() > MAX_PAYLOAD {
            raw.trace_state.clear();
        }
        encode_frame(self.versions.lowest.max(1), &raw.encode_to_vec())
    }

    /// Takes the hello's bytes from the front of `input`; none while some are missing.
    ///
    /// # Errors
    /// When the bytes cannot become a hello. The answer to that is [`super::Answer::Malformed`].
    pub fn decode(decoder: &mut FrameDecoder, input: &mut &[u8]) -> Result<Option<Self>, WireError> {
        match decoder.feed(input)? {
            Step::Missing(_) => Ok(None),
            Step::Frame { version, payload } => Self::from_payload(version, &payload).map(Some),
        }
    }

    /// Reads a frame's payload. Unknown fields are skipped.
    ///
    /// # Errors
    /// When the payload is no hello.
    pub fn from_payload(frame_version: u8, payload: &[u8]) -> Result<Self, WireError> {
        let raw = RawHello::decode(payload).map_err(|error| WireError::Protobuf(error.to_string()))?;
        let versions = VersionRange::read(raw.lowest_version, raw.highest_version, frame_version)
            .ok_or_else(|| WireError::field("lowest_version", "it is above highest_version"))?;
        let port = u16::try_from(raw.port).ok().filter(|port| *port != 0);
        Ok(Self {
            service: ServiceName::new(&raw.service).map_err(|e| WireError::field("service", e))?,
            port: port.ok_or_else(|| WireError::field("port", "it is not between 1 and 65535"))?,
            instance: optional("instance", &raw.instance)?,
            subset: pairs::decode(raw.subset, "subset")?,
            source_workload: optional("source_workload", &raw.source_workload)?,
            source_labels: pairs::decode(raw.source_labels, "source_labels")?,
            original_address: optional("original_address", &raw.original_address)?,
            trace_context: (!raw.trace_parent.is_empty())
                .then_some(TraceContext { parent: raw.trace_parent, state: raw.trace_state }),
            versions,
        })
    }

    /// The version that both sides speak from here on; none means [`super::Answer::Version`].
    #[must_use]
    pub fn common_version(&self) -> Option<u8> {
        self.versions.common(OUR_VERSIONS)
    }

    fn to_raw(&self) -> RawHello {
        let trace = self.trace_context.as_ref();
        RawHello {
            lowest_version: self.versions.lowest.into(),
            highest_version: self.versions.highest.into(),
            service: self.service.to_string(),
            port: self.port.into(),
            instance: self.instance.as_ref().map(ToString::to_string).unwrap_or_default(),
            subset: pairs::encode(&self.subset),
            source_workload: self.source_workload.as_ref().map(ToString::to_string).unwrap_or_default(),
            source_labels: pairs::encode(&self.source_labels),
            original_address: self.original_address.as_ref().map(ToString::to_string).unwrap_or_default(),
            trace_parent: trace.map(|trace| trace.parent.clone()).unwrap_or_default(),
            trace_state: trace.map(|trace| trace.state.clone()).unwrap_or_default(),
        }
    }
}

/// Reads a field that is empty when absent.
fn optional<T: std::str::FromStr<Err: ToString>>(
    field: &'static str,
    text: &str,
) -> Result<Option<T>, WireError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: T::Err| WireError::field(field, error))
}
