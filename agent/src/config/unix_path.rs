//! How long the path of a Unix socket may be.

use std::path::Path;

use weft_core::config::{Fault, Place};

/// In bytes: the kernel's `sun_path` of 108, less the NUL at its end (`unix(7)`).
pub(super) const MAX_SOCKET_PATH: usize = 107;
/// An admin socket is made as `.PID` beside its place, with at most so many bytes (`PID_MAX_LIMIT` is four million).
const PRIVATE_NAME: usize = 8;

/// The fault of a `place` that leads to an admin socket at `path`, when none can be made there.
pub(super) fn too_long(path: &Path, place: Place) -> Option<Fault> {
    let name = path.file_name().unwrap_or_default().len();
    let length = path.as_os_str().len() + PRIVATE_NAME.saturating_sub(name);
    let message = format!("the socket's path `{}` is too long", path.display());
    let expected = format!("expected at most {MAX_SOCKET_PATH} bytes, all a Unix socket can have");
    // What the file does not say has no line.
    let help =
        if place.line == 0 { "a variable of the environment says so, such as `WEFT_RUN_DIR`" } else { "" };
    (length > MAX_SOCKET_PATH).then(|| Fault::error(place, message).expected(expected).help(help))
}
