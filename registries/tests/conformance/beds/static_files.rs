//! A folder of files. Its server is the folder itself: where it cannot be read, it is away.

use std::{fmt::Write as _, fs, path::PathBuf, sync::Arc, time::Duration};

use tempfile::TempDir;
use weft_core::{name::RegistryName, registry::Registry};
use weft_registries::static_files::{StaticRegistry, StaticSettings};

use crate::bed::{Bed, identity};

struct Folder {
    _scratch: TempDir,
    path: PathBuf,
    away: PathBuf,
}

pub(crate) fn open() -> Option<Box<dyn Bed>> {
    let scratch = tempfile::tempdir().unwrap();
    let (path, away) = (scratch.path().join("mesh.d"), scratch.path().join("away"));
    fs::create_dir(&path).unwrap();
    Some(Box::new(Folder { _scratch: scratch, path, away }))
}

impl Folder {
    /// As editors do it, so that no half of a file is ever read.
    fn write(&self, name: &str, text: &str) {
        let fresh = self.path.join(format!(".{name}.new"));
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.path.join(name)).unwrap();
    }
}

impl Bed for Folder {
    fn registry(&self) -> Arc<dyn Registry> {
        let poll = Duration::from_secs(1);
        let settings = StaticSettings { path: self.path.clone(), poll, allow_loopback: true };
        Arc::new(StaticRegistry::new(RegistryName::new("static").unwrap(), settings))
    }

    fn scale(&mut self, service: &str, instances: usize) {
        if instances == 0 {
            return fs::remove_file(self.path.join(format!("{service}.toml"))).unwrap();
        }
        let identity = identity(service);
        let mut text =
            format!("[[service]]\nname = \"{service}\"\nports = [{{ name = \"http\", number = 80 }}]\n");
        for number in 1..=instances {
            let host = format!("10.0.0.{number}");
            let _written = write!(
                text,
                "[[service.endpoint]]\ninstance = \"{service}-{number}\"\naddress = \"{host}:8080\"\n\
                 mesh = \"{host}:15008\"\nidentity = \"{identity}\"\n"
            );
        }
        self.write(&format!("{service}.toml"), &text);
    }

    fn route(&mut self, service: &str) {
        let text = format!(
            "[[route]]\nname = \"by-header\"\nservice = \"{service}\"\n[[route.rule]]\nname = \"all\"\n"
        );
        self.write("route.toml", &text);
    }

    fn kill(&mut self) {
        fs::rename(&self.path, &self.away).unwrap();
    }

    fn restart(&mut self) {
        fs::rename(&self.away, &self.path).unwrap();
    }
}
