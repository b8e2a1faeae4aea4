//! What a sink is asked to be.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::faults::Fault;

/// Service extensions a sink can announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Extension {
    Pipelining,
    Size,
    EightBitMime,
    Chunking,
    BinaryMime,
    SmtpUtf8,
    EnhancedStatusCodes,
    Dsn,
}

const EXTENSIONS: [(Extension, &str, &str); 8] = [
    (Extension::Pipelining, "pipelining", "PIPELINING"),
    (Extension::Size, "size", "SIZE"),
    (Extension::EightBitMime, "8bitmime", "8BITMIME"),
    (Extension::Chunking, "chunking", "CHUNKING"),
    (Extension::BinaryMime, "binarymime", "BINARYMIME"),
    (Extension::SmtpUtf8, "smtputf8", "SMTPUTF8"),
    (Extension::EnhancedStatusCodes, "enhancedstatuscodes", "ENHANCEDSTATUSCODES"),
    (Extension::Dsn, "dsn", "DSN"),
];

/// Parameters of MAIL and RCPT and the extension each belongs to.
const PARAMETERS: [(&str, Extension); 8] = [
    (" SIZE=", Extension::Size),
    (" BODY=8BITMIME", Extension::EightBitMime),
    (" BODY=BINARYMIME", Extension::BinaryMime),
    (" SMTPUTF8", Extension::SmtpUtf8),
    (" RET=", Extension::Dsn),
    (" ENVID=", Extension::Dsn),
    (" NOTIFY=", Extension::Dsn),
    (" ORCPT=", Extension::Dsn),
];

impl FromStr for Extension {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = EXTENSIONS.iter().find(|(_, name, _)| *name == text.to_ascii_lowercase());
        found.map(|&(extension, _, _)| extension).ok_or_else(|| {
            let names: Vec<&str> = EXTENSIONS.iter().map(|&(_, name, _)| name).collect();
            format!("{text}: one of {}", names.join(", "))
        })
    }
}

/// A sink.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name in the banner.
    pub name: String,
    /// Extensions announced and honoured.
    pub extensions: Vec<Extension>,
    /// Extensions announced and not honoured.
    pub lies: Vec<Extension>,
    /// STARTTLS is on offer.
    pub starttls: bool,
    /// Octets of the largest message.
    pub size_max: usize,
    /// What goes wrong on purpose.
    pub faults: Vec<Fault>,
    /// Seed of the faults' dice.
    pub seed: u64,
    /// A sender and recipient seen first are refused with 450 until so long has passed.
    pub greylist_ms: Option<u64>,
    /// Where messages are kept.
    pub maildir: Option<PathBuf>,
    /// The list of acknowledged ids to compare with at the end.
    pub check: Option<PathBuf>,
    /// A line on stdout for each message.
    pub verbose: bool,
    /// Once, when the sink has run so many milliseconds, it does nothing for so many.
    pub stall_ms: Option<(u64, u64)>,
    /// Messages taken so far, for somebody who watches.
    pub count: Option<Arc<AtomicU64>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "sink.example".to_owned(),
            extensions: EXTENSIONS.iter().map(|&(extension, _, _)| extension).collect(),
            lies: Vec::new(),
            starttls: false,
            size_max: 128 << 20,
            faults: Vec::new(),
            seed: 1,
            greylist_ms: None,
            maildir: None,
            check: None,
            verbose: false,
            stall_ms: None,
            count: None,
        }
    }
}

impl Options {
    /// Whether an extension is announced and works.
    pub fn honours(&self, extension: Extension) -> bool {
        self.extensions.contains(&extension) && !self.lies.contains(&extension)
    }

    /// What EHLO is told, in clear or inside TLS.
    pub(super) fn ehlo_reply(&self, secure: bool) -> Vec<u8> {
        let mut reply = format!("250-{}\r\n", self.name);
        for (extension, _, keyword) in EXTENSIONS {
            if self.extensions.contains(&extension) || self.lies.contains(&extension) {
                reply.push_str("250-");
                reply.push_str(keyword);
                if extension == Extension::Size {
                    reply.push_str(&format!(" {}", self.size_max));
                }
                reply.push_str("\r\n");
            }
        }
        if self.starttls && !secure {
            reply.push_str("250-STARTTLS\r\n");
        }
        reply.push_str("250 HELP\r\n");
        reply.into_bytes()
    }

    /// The first parameter of an upper-case command that this sink does not honour.
    pub(super) fn refused_parameter(&self, upper: &[u8]) -> Option<&'static str> {
        PARAMETERS.iter().find_map(|&(parameter, extension)| {
            let used = memchr::memmem::find(upper, parameter.as_bytes()).is_some();
            (used && !self.honours(extension)).then(|| parameter.trim_matches([' ', '=']))
        })
    }
}
