//! What it means for an attempt that the operator named a host in the place of the route.

use std::sync::Arc;

use smtp::client::TlsPolicy;
use spool::message::Envelope;

use super::destination_name;
use crate::desk::Desk;
use crate::events::Reason;
use crate::route::{Named, Route};

/// The way of a recipient: what the operator named, else its domain's route.
pub(super) fn way(
    desk: &Desk,
    envelope: &Envelope,
    n: u16,
    domain: &str,
) -> (Option<Arc<Route>>, Box<[u8]>) {
    let own = desk.ways.route(domain);
    let recipient = envelope.recipients.get(usize::from(n));
    if let Some(named) = recipient.and_then(|recipient| Named::of(&recipient.route)) {
        let route = named.route(own.map(|own| &**own));
        return (Some(Arc::new(route)), named.destination());
    }
    (own.cloned(), destination_name(desk, domain))
}

/// Of two ways to one destination that which asks for more: TLS of any recipient's route is TLS.
pub(super) fn stricter(one: Option<Arc<Route>>, other: Option<Arc<Route>>) -> Option<Arc<Route>> {
    let must = |route: &Arc<Route>| route.tiers.iter().any(|tier| tier.tls == TlsPolicy::Must);
    if one.as_ref().is_some_and(must) { one } else { other }
}

/// Whether a failure at a host that the operator named ends the recipient all the same.
pub(super) const fn is_final(reason: Reason) -> bool {
    matches!(reason, Reason::Operator | Reason::Expired)
}
