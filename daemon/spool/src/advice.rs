//! What to do about a device that is refused: one table for the daemon and for who looks at a
//! spool without it.
//!
//! *Not here*: which key of a config may help (the daemon says that).

use crate::disk::DiskError;
use crate::set::Problem;

const WHOLE: &str = "nothing was changed; the rest of it is missing: put the whole file or device \
                     back, or restore it from where it was copied";
const MIXED: &str = "nothing was changed; something was copied into it: put back what stood there, \
                     or name the spool that this part belongs to";

/// What to do.
#[must_use]
pub fn on(problem: &Problem) -> &'static str {
    match problem {
        Problem::Disk(DiskError::Short) | Problem::Truncated { .. } => WHOLE,
        Problem::Swapped { .. } | Problem::OtherLog => MIXED,
        Problem::OtherSet | Problem::Twice(_) | Problem::Missing(_) => {
            "nothing was changed; name all devices of one spool, each once, and no others"
        }
        Problem::OtherNode { .. } => "nothing was changed; it is the spool of another node",
        Problem::Alien | Problem::Bears(_) => {
            "this place holds something else: choose another, or erase it yourself"
        }
        Problem::Blank => {
            "nothing was changed; nothing of a spool can be read there: is it the right place? The \
             daemon makes a spool where none of its places has one"
        }
        Problem::Version(_) | Problem::UnknownCritical { .. } => {
            "nothing was changed; take the version that wrote it"
        }
        Problem::Damaged => {
            "nothing was changed; all four copies of the superblock are gone: put back what stood \
             there, at bytes 0, 262144, 524288 and 786432"
        }
        _ => "nothing was changed; docs/spool.md tells what each part is",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentRef;

    #[test]
    fn who_must_put_something_back_is_told_what() {
        let cut = Problem::Truncated { expected: 2, found: 1 };
        assert_eq!(on(&cut), on(&Problem::Disk(DiskError::Short)));
        assert!(on(&cut).contains("missing"));
        let swapped = Problem::Swapped { found: SegmentRef::new(0, 1) };
        assert_eq!(on(&swapped), on(&Problem::OtherLog));
        assert!(on(&Problem::Version(9)).contains("version"));
    }
}
