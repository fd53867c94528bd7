//! Checking files without running anything: those named, those in folders, and those that they lead to.

mod strays;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Serialize;
use weft_core::config::{Fault, MeshFile, Place, SourceFile};
use weft_registries::{
    Plan,
    static_files::{conflicts, mesh_files, read_resources},
};

use super::{FileKind, Overrides, kind_of, read_agent, read_hub};

/// A file that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedFile {
    /// The file.
    pub path: PathBuf,
    /// What it was taken for; none when it could not be read.
    pub kind: Option<FileKind>,
    /// All that is wrong with it, and all that may be.
    pub faults: Vec<Fault>,
}

/// Checks files and folders, and the folders of resources that agents' and hubs' files name. Each file is checked once.
#[must_use]
pub fn survey(paths: &[PathBuf], kind: Option<FileKind>) -> Vec<CheckedFile> {
    let mut survey = Survey { kind, seen: BTreeSet::new(), checked: Vec::new() };
    for path in paths {
        if path.is_dir() { survey.folder(path, None) } else { survey.files(std::slice::from_ref(path)) }
    }
    survey.checked
}

struct Survey {
    /// What every file is taken for; none to guess.
    kind: Option<FileKind>,
    seen: BTreeSet<PathBuf>,
    checked: Vec<CheckedFile>,
}

impl Survey {
    /// The files of a folder; `named_at` is where a configuration names it.
    fn folder(&mut self, folder: &Path, named_at: Option<&Place>) {
        match mesh_files(folder) {
            Ok(paths) => self.files(&paths),
            Err(error) => {
                let name = folder.display().to_string();
                let fault =
                    Fault::error(Place::whole_file(&name), format!("the folder cannot be listed: {error}"));
                let fault = match named_at {
                    Some(place) => fault.related(place.clone(), "a registry names it here"),
                    None => fault,
                };
                self.checked.push(CheckedFile { path: folder.to_owned(), kind: None, faults: vec![fault] });
            }
        }
    }

    /// Files that stand together: resources among them must not be defined twice.
    fn files(&mut self, paths: &[PathBuf]) {
        let mut meshes: Vec<(usize, MeshFile)> = Vec::new();
        let mut folders: Vec<Plan> = Vec::new();
        for path in paths {
            if !self.seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                continue;
            }
            let (checked, found) = check_file(path, self.kind);
            self.checked.push(checked);
            match found {
                Found::Mesh(mesh) => meshes.push((self.checked.len() - 1, mesh)),
                Found::Registries(plans) => folders.extend(plans),
                Found::Nothing => {}
            }
        }
        for (index, faults) in conflicts(meshes.iter().map(|(index, mesh)| (*index, mesh))) {
            self.checked[index].faults.extend(faults.into_iter().map(|(_, fault)| fault));
        }
        for (index, fault) in strays::strays(&meshes) {
            self.checked[index].faults.push(fault);
        }
        for plan in folders {
            if let Some(folder) = plan.settings.folder() {
                self.folder(folder, Some(&plan.name.place));
            }
        }
    }
}

/// What a good file leads to.
enum Found {
    Nothing,
    Mesh(MeshFile),
    Registries(Vec<Plan>),
}

fn check_file(path: &Path, kind: Option<FileKind>) -> (CheckedFile, Found) {
    let checked = |kind, faults| CheckedFile { path: path.to_owned(), kind, faults };
    let source = match SourceFile::read(path) {
        Ok(source) => source,
        Err(fault) => return (checked(None, vec![*fault]), Found::Nothing),
    };
    let kind = kind.unwrap_or_else(|| kind_of(path, &source));
    let (faults, found) = match kind {
        FileKind::Agent => {
            let outcome = read_agent(&source, &Overrides::default());
            (outcome.faults, outcome.value.map(|config| Found::Registries(config.registries)))
        }
        FileKind::Hub => {
            let outcome = read_hub(&source, &Overrides::default());
            (outcome.faults, outcome.value.map(|config| Found::Registries(config.registries)))
        }
        FileKind::Mesh => {
            let outcome = read_resources(&source);
            (outcome.faults, outcome.value.map(Found::Mesh))
        }
    };
    (checked(Some(kind), faults), found.unwrap_or(Found::Nothing))
}
