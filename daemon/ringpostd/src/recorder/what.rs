//! The kinds of what is taken down.

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal,)+) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum What {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl What {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its stable name.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

kinds! {
    /// A client connected and was let in.
    Connected = "connected",
    /// A client was turned away before its first command.
    TurnedAway = "turned-away",
    /// A command or a message was refused.
    Refused = "refused",
    /// A client spoke before the greeting.
    Early = "early-talker",
    /// A limit was reached.
    Limit = "limit",
    /// TLS began.
    Tls = "tls",
    /// A handshake failed.
    TlsFailed = "tls-failed",
    /// A session ended.
    Closed = "closed",
    /// A message was answered 250.
    Accepted = "accepted",
    /// A report was made.
    Generated = "generated",
    /// A next hop took a recipient.
    Relayed = "relayed",
    /// A recipient waits for another attempt.
    Deferred = "deferred",
    /// A recipient failed for good.
    Bounced = "bounced",
    /// Nothing of a message is left to do.
    Completed = "completed",
    /// A message waits for the operator.
    Held = "held",
    /// It waits no more.
    Released = "released",
    /// The operator sends it elsewhere, or back to its route.
    Moved = "moved",
    /// The operator removed it.
    Removed = "removed",
    /// A line of a traced session, from the client.
    Heard = "heard",
    /// A line of a traced session, to the client.
    Said = "said",
}

impl What {
    /// Its number in a record.
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The kind of that number.
    #[must_use]
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    /// Whether `from` is a sender's address, not the name of a host.
    #[must_use]
    pub const fn from_is_address(self) -> bool {
        matches!(self, Self::Refused | Self::Accepted)
    }
}
