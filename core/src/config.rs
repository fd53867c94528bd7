//! Reading configuration files so that a person can mend them.
//!
//! One reader serves every file of Weft: the agent's, the hub's, the folders of resources and each registry's own
//! section. It parses TOML with all syntax errors, then reads tables key by key; every fault is collected with its file,
//! line and column, what was expected and the nearest valid word, and reading goes on. Three invariants hold:
//!
//! - nothing written is ignored: a key that nobody asks for is a fault when its [`Section`] is dropped;
//! - a value is never half right: what has an error yields no value at all ([`Outcome::value`]);
//! - a syntax error does not make up others: on its line, and for keys that seem missing, nothing more is said.
//!
//! The keys that a section asks for are its schema, so registries read theirs without this module knowing them.

mod fault;
mod mask;
mod suggest;
mod render;
mod source;
mod collector;
mod value;
mod section;
mod units;
mod scalar;
mod syntax;
mod mesh;

pub use fault::{Fault, Place, Related, Severity, to_json};
pub use mesh::{MeshFile, read_mesh, read_principal};
pub use render::{Style, render, render_all};
pub use scalar::{HostPort, Port, SocketPort};
pub use section::Section;
pub use source::{MAX_FILE, SourceFile};
pub use suggest::nearest;
pub use syntax::{Outcome, read};
pub use units::{Size, UnitError, format_duration, parse_duration, parse_size};
pub use value::{Located, OneOrMany, Readable, Value};
