//! What init itself reads of `mx.toml`; all else is the daemon's.
//!
//! *Failure*: a file that cannot be read says nothing.

use std::path::{Path, PathBuf};

use crate::generations::MAIL;

fn pointed<T>(
    folder: &Path,
    pointer: &str,
    read: impl FnOnce(&toml_span::Value<'_>) -> T,
) -> Option<T> {
    let text = std::fs::read_to_string(folder.join(MAIL)).ok()?;
    let mail = toml_span::parse(&text).ok()?;
    mail.pointer(pointer).map(read)
}

/// Whether the config puts the filter on an interface.
pub(crate) fn wants_filter(folder: &Path) -> bool {
    let interfaces = |value: &toml_span::Value<'_>| value.as_array().is_some_and(|a| !a.is_empty());
    pointed(folder, "/xdp/interfaces", interfaces).unwrap_or_default()
}

/// Where the daemon is asked.
pub(crate) fn socket(folder: &Path) -> Option<PathBuf> {
    let text = pointed(folder, "/admin/socket", |value| value.as_str().map(str::to_owned))??;
    // From the config's own folder, as the daemon has it.
    Some(folder.join(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_are_read_and_no_others_needed() {
        let folder = std::env::temp_dir().join(format!("init-mail-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!((wants_filter(&folder), socket(&folder)), (false, None));
        let write = |text: &str| std::fs::write(folder.join(MAIL), text).unwrap();
        write("[xdp]\ninterfaces = []\n[admin]\nsocket = \"/run/a\"\n");
        assert!(!wants_filter(&folder));
        assert_eq!(socket(&folder), Some("/run/a".into()));
        write("[xdp]\ninterfaces = [\"mail\"]\n[admin]\nsocket = \"a\"\n");
        assert!(wants_filter(&folder));
        assert_eq!(socket(&folder), Some(folder.join("a")));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
