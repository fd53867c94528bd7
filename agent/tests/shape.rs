//! Holds the shape of the code: which crate may use which, in which order the modules of a crate may use each other,
//! and how long files and functions may grow. The rules are those of ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{Attribute, File, Item, UseTree, spanned::Spanned, visit::Visit};

/// No file is longer.
const MAX_FILE_LINES: usize = 500;
/// No function is longer, from its name to its closing brace.
const MAX_FUNCTION_LINES: usize = 100;
/// `main.rs` only hands over.
const MAX_MAIN_LINES: usize = 50;

/// Each crate and the crates of this workspace that it may use.
const ARROWS: [(&str, &[&str]); 7] = [
    ("testbed", &[]),
    ("core", &[]),
    ("registries", &["core", "testbed"]),
    ("proxy", &["core"]),
    ("federation", &["core"]),
    ("agent", &["core", "registries", "proxy", "federation", "testbed"]),
    ("examples", &["agent", "core"]),
];

/// Names that a crate must not use, because a wall stands there.
const WALLS: [(&str, &str); 3] =
    [("proxy", "Snapshot"), ("registries", "weft_core::table"), ("federation", "weft_core::table")];

/// What may stand at the top of the repository.
const TOP: [&str; 10] =
    ["agent", "bench", "core", "deploy", "docs", "examples", "federation", "proxy", "registries", "testbed"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("a folder that can be listed").path()) {
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn parse(path: &Path) -> (String, File) {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (text, file)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string().contains("test"))
    })
}

/// Finds functions over the budget.
struct Functions<'a> {
    path: &'a Path,
    faults: Vec<String>,
}

impl Functions<'_> {
    fn check(&mut self, name: &syn::Ident, block: &syn::Block) {
        let first = name.span().start().line;
        let lines = block.span().end().line - first + 1;
        if lines > MAX_FUNCTION_LINES {
            let place = shown(self.path);
            self.faults.push(format!(
                "{place}:{first}: function {name} has {lines} lines, more than {MAX_FUNCTION_LINES}"
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.check(&item.sig.ident, &item.block);
        syn::visit::visit_item_fn(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check(&item.sig.ident, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

#[test]
fn files_and_functions_keep_their_budgets() {
    let mut faults = Vec::new();
    for path in ARROWS.iter().flat_map(|(name, _)| rust_files(&root().join(name))) {
        let (text, file) = parse(&path);
        let lines = text.lines().count();
        let limit = if path.ends_with("agent/src/main.rs") { MAX_MAIN_LINES } else { MAX_FILE_LINES };
        if lines > limit {
            faults.push(format!("{}: {lines} lines, more than {limit}", shown(&path)));
        }
        if path.ends_with("mod.rs") {
            faults.push(format!("{}: a module's root is NAME.rs beside the folder NAME", shown(&path)));
        }
        let mut functions = Functions { path: &path, faults: Vec::new() };
        functions.visit_file(&file);
        faults.append(&mut functions.faults);
    }
    assert_none(&faults);
}

#[test]
fn crates_use_only_what_the_drawing_allows() {
    let mut faults = Vec::new();
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for (other, _) in ARROWS {
            let used = manifest.lines().any(|line| line.starts_with(&format!("weft-{other}")));
            if used && !allowed.contains(&other) {
                faults.push(format!("{name}/Cargo.toml: {name} must not use weft-{other}"));
            }
        }
        for (walled, word) in WALLS.iter().filter(|(walled, _)| *walled == name) {
            for path in rust_files(&root().join(walled).join("src")) {
                let text = fs::read_to_string(&path).unwrap();
                if text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word)) {
                    faults.push(format!("{}: {walled} must not name {word}", shown(&path)));
                }
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn the_top_of_the_repository_holds_only_the_agreed_folders() {
    let folders = fs::read_dir(root()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir());
    let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let strange =
        names.filter(|name| !name.starts_with('.') && name != "target" && !TOP.contains(&name.as_str()));
    assert_none(&strange.map(|name| format!("{name}/: not one of {TOP:?}")).collect::<Vec<_>>());
}

/// The top-level modules of a crate, in the order of their declaration.
fn module_order(source: &Path) -> Vec<String> {
    let modules = parse(&source.join("lib.rs")).1.items.into_iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// Collects the first module that each `crate::` path names, with its line.
#[derive(Default)]
struct CratePaths(BTreeSet<(usize, String)>);

impl CratePaths {
    fn tree(&mut self, line: usize, tree: &UseTree, after_crate: bool) {
        match tree {
            UseTree::Path(path) if after_crate => {
                self.0.insert((line, path.ident.to_string()));
            }
            UseTree::Path(path) if path.ident == "crate" => self.tree(line, &path.tree, true),
            UseTree::Name(name) if after_crate => {
                self.0.insert((line, name.ident.to_string()));
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(line, tree, after_crate);
                }
            }
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for CratePaths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test_only(&item.attrs) {
            self.tree(item.span().start().line, &item.tree, false);
        }
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "crate") {
            self.0.extend(segments.next().map(|second| (path.span().start().line, second.ident.to_string())));
        }
        syn::visit::visit_path(self, path);
    }
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test_only(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }
}

#[test]
fn modules_use_only_those_declared_before_them() {
    let mut faults = Vec::new();
    for (name, _) in ARROWS {
        let source = root().join(name).join("src");
        let order = module_order(&source);
        let rank: BTreeMap<&str, usize> = order.iter().enumerate().map(|(i, m)| (m.as_str(), i)).collect();
        for path in rust_files(&source) {
            let inside = path.strip_prefix(&source).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
            let own = first.trim_end_matches(".rs");
            let Some(&own_rank) = rank.get(own) else { continue };
            let mut paths = CratePaths::default();
            paths.visit_file(&parse(&path).1);
            for (line, used) in paths.0 {
                if rank.get(used.as_str()).is_some_and(|&used_rank| used_rank > own_rank) {
                    faults.push(format!(
                        "{}:{line}: {own} comes before {used} and must not use it",
                        shown(&path)
                    ));
                }
            }
        }
    }
    assert_none(&faults);
}

/// Adds `file` and all files that its `mod` lines lead to; `folder` is where those lie.
fn declared(folder: &Path, file: &Path, tree: &mut BTreeSet<PathBuf>) {
    tree.insert(file.to_owned());
    for item in parse(file).1.items {
        if let Item::Mod(module) = item
            && module.content.is_none()
        {
            let name = module.ident.to_string();
            declared(&folder.join(&name), &folder.join(format!("{name}.rs")), tree);
        }
    }
}

#[test]
fn every_file_is_in_the_module_tree() {
    let mut faults = Vec::new();
    for (name, _) in ARROWS {
        let source = root().join(name).join("src");
        let mut tree = BTreeSet::new();
        for entry in ["lib.rs", "main.rs"].map(|file| source.join(file)).iter().filter(|file| file.exists()) {
            declared(&source, entry, &mut tree);
        }
        let orphans = rust_files(&source).into_iter().filter(|path| !tree.contains(path));
        faults.extend(orphans.map(|path| format!("{}: no module names this file", shown(&path))));
    }
    assert_none(&faults);
}
