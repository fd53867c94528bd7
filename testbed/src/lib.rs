//! Starts the real registries that tests, benches and the demonstration run against.
//!
//! Each server is the program that teams run, built by `testbed/install`, started on free loopback ports with its state in
//! a scratch folder. A value of this crate is a running server: dropping it ends the server and removes the folder, unless
//! the thread panics, in which case the logs stay and their place is printed. Neither process nor folder outlives a test
//! process that is killed.
//!
//! Everything blocks. From asynchronous code, use a thread that may block. All methods take `&self`, so that one thread
//! can put load on a server while another kills it.
//!
//! ```no_run
//! use weft_testbed::{Consul, ConsulOptions, Kind, installed, required};
//!
//! let Some(home) = required(installed(Kind::Consul)) else { return };
//! let consul = Consul::start(&home, ConsulOptions::default()).unwrap();
//! consul.register(&serde_json::json!({ "Name": "web", "Port": 8080 })).unwrap();
//! consul.kill();
//! consul.restart().unwrap();
//! ```

mod error;
mod wait;
mod home;
mod ports;
mod http;
mod process;
mod gate;
mod consul;
mod nomad;
mod etcd;
mod kubernetes;
mod eureka;
mod knot;

pub use consul::{AclToken, Consul, ConsulOptions};
pub use error::Error;
pub use etcd::Etcd;
pub use eureka::{Eureka, EurekaClient, EurekaOptions};
pub use gate::{Gate, GateCounts, GateMode};
pub use home::{Home, Kind, NotInstalled, installed, required};
pub use http::{Answer, Call};
pub use knot::{Knot, KnotCounts};
pub use kubernetes::{Kubernetes, KubernetesOptions};
pub use nomad::{Nomad, NomadOptions};
pub use ports::Port;
pub use process::{Process, Scratch};
pub use wait::until;
