//! Standing orders: shown, given, taken back.

use std::sync::Arc;

use control::{Accepting, Act, Failure, FailureCode, QueueAct, Reply, Request, Rows, Rule, Text};

use super::limits::{ACT_WAIT, POST_AGAIN};
use super::state::{self, Caller};
use super::{House, questions};
use crate::config::RouteTls;
use crate::post::{Orders, ToCore};
use crate::route::Named;
use crate::rules::Rules;

const SECOND_US: u64 = 1_000_000;

impl House {
    /// Writes down who did what; refuses what cannot be written down.
    pub(super) fn audit(&self, who: Caller, what: &str) -> Result<(), Failure> {
        let folder = state::folder(&self.orders.borrow().config);
        state::audit(&folder, engine::wall_us(), who, what).map_err(|error| {
            let message =
                format!("the audit log in {} cannot be written: {error}", folder.display());
            Failure::new(FailureCode::Refused, &message, "make room there; see [admin] state")
        })
    }

    /// Writes down the acts that have no line of their own in the audit log. What stops the daemon
    /// or reads its config is done even if that cannot be written: it may be the way out.
    pub(super) fn audit_act(&self, request: &Request, who: Caller) -> Result<(), Failure> {
        let what = match request {
            Request::Reload | Request::Drain => {
                let _ = self.audit(who, request.name());
                return Ok(());
            }
            Request::HintsDelete(of) => format!("hints delete {} {}", &*of.kind, &*of.key),
            Request::HintsSet { of, fields, life_s } => {
                let fields =
                    fields.iter().map(|field| format!(" {}={}", &*field.name, field.number));
                let fields: String = fields.collect();
                format!("hints set {} {}{fields} for {life_s} s", &*of.kind, &*of.key)
            }
            Request::HintsLoad { hints } => format!("hints load of {}", hints.len()),
            Request::HintsTidy => "hints tidy".to_owned(),
            Request::SpoolFill => "spool fill".to_owned(),
            Request::SpoolTakeIn { yes: true } => "spool take-in --yes".to_owned(),
            Request::Trace { what, seconds } => format!("trace {} {seconds} s", &**what),
            Request::Submit(mail) => {
                let (sender, recipient) = (&*mail.sender, &*mail.recipient);
                let name = if mail.import { "queue import" } else { "test send" };
                let (octets, count) = (mail.octets, mail.recipients);
                format!("{name} of {octets} octets from <{sender}> to {count}: <{recipient}>")
            }
            Request::Upgrade(wanted) => {
                let flag =
                    |word: &str, wanted: bool| if wanted { word.to_owned() } else { String::new() };
                let flags =
                    flag(" --downgrade", wanted.downgrade) + &flag(" --later", wanted.later);
                format!("upgrade {}{flags}", &*wanted.manifest)
            }
            Request::Xdp(act) if !act.is_read_only() => format!("xdp {act:?}"),
            Request::QueueRead { id, part: 0 } => format!("queue export {}", &**id),
            _ => return Ok(()),
        };
        self.audit(who, &what)
    }

    /// All standing orders.
    pub(super) fn rules_shown(&self) -> Reply {
        let rules = Arc::clone(&self.orders.borrow().rules);
        let wall_s = engine::wall_us() / SECOND_US;
        let row = |order: &str, of: &str, left: String, why: &str| {
            vec![order.to_owned(), of.to_owned(), left, why.to_owned()]
        };
        let mut rows = Vec::new();
        match rules.accepting {
            Accepting::Open => {}
            Accepting::Refuse => rows.push(row("accepting", "suspended: 421", String::new(), "")),
            Accepting::Closed => {
                rows.push(row("accepting", "suspended: port closed", String::new(), ""));
            }
            Accepting::Drain => {
                rows.push(row("accepting", "drained: health page 503", String::new(), ""));
            }
        }
        if !rules.delivering {
            rows.push(row("delivering", "suspended", String::new(), ""));
        }
        rows.extend(rules.held.iter().map(|domain| row("held domain", domain, String::new(), "")));
        for listed in rules.listed.iter().filter(|l| l.until_s == 0 || l.until_s > wall_s) {
            let left = match listed.until_s {
                0 => "for good".to_owned(),
                until => format!("{}s", until - wall_s),
            };
            let order = if listed.allow { "allowed" } else { "blocked" };
            rows.push(row(order, &listed.text, left, &listed.why));
        }
        let rows = Rows::new(&["order", "of", "left", "why"]).with(rows);
        Reply::Rows(Box::new(rows))
    }

    /// Gives or takes back one.
    pub(super) async fn rule(&self, rule: Rule, who: Caller) -> Reply {
        // One at a time: each begins with what the one before left.
        while self.ordering.replace(true) {
            tokio::time::sleep(POST_AGAIN).await;
        }
        let reply = self.rule_alone(rule, who).await;
        self.ordering.set(false);
        reply
    }

    async fn rule_alone(&self, rule: Rule, who: Caller) -> Reply {
        let old = Arc::clone(&self.orders.borrow());
        let new = match old.rules.with(&rule, engine::wall_us() / SECOND_US) {
            Ok(new) => new,
            Err(why) => return Reply::Failure(Failure::new(FailureCode::Refused, &why, "")),
        };
        if let Err(failure) = self.audit(who, &format!("rule {rule:?}")) {
            return Reply::Failure(failure);
        }
        let folder = state::folder(&old.config);
        let saved = new.clone();
        let saved = tokio::task::spawn_blocking(move || state::save_rules(&folder, &saved)).await;
        let saved = saved.map_err(std::io::Error::other).and_then(|saved| saved);
        if let Err(error) = saved {
            let message = format!("the standing orders cannot be written: {error}");
            return Reply::Failure(Failure::new(FailureCode::Refused, &message, "nothing changed"));
        }
        self.put_rules(new);
        // A core's letters come in order: who has answered judges the next client by the order.
        let heard = self.questions.ask(Request::Ledger).await;
        let all = heard.is_ok_and(|parts| parts.iter().all(Option::is_some));
        let later = if all { "" } else { "; a core has not taken it yet: `ringpost status`" };
        Reply::Done { message: Text::cut(&format!("{}{later}", said(&rule))) }
    }

    /// Does something to messages.
    pub(super) async fn queue_act(&self, act: QueueAct, who: Caller) -> Reply {
        let fail =
            |code, message: &str, advice: &str| Reply::Failure(Failure::new(code, message, advice));
        if let Some(failure) = misunderstood(&act) {
            return Reply::Failure(failure);
        }
        let (to, aside) = match &act.to {
            None => (String::new(), None),
            Some(to) => match self.host_to_move_to(to, &act).await {
                Ok((to, aside)) => (format!(" to {to}"), aside),
                Err(failure) => return Reply::Failure(failure),
            },
        };
        let delivering = self.orders.borrow().rules.delivering;
        if act.act == Act::Bounce && !delivering {
            let advice = "`ringpost resume delivering` first, with its domains held if need be";
            return fail(
                FailureCode::Refused,
                "nothing is given up while delivering is suspended",
                advice,
            );
        }
        let (name, moves) = (act.act.name(), matches!(act.act, Act::Move | Act::Unmove));
        let of = match (&act.next_hop, act.all) {
            (_, true) => "all".to_owned(),
            (Some(hop), _) => format!("next hop {}", &**hop),
            _ => act.ids.iter().map(|id| &**id).collect::<Vec<_>>().join(" "),
        } + &to;
        if let Err(failure) = self.audit(who, &format!("queue {name} {of}")) {
            return Reply::Failure(failure);
        }
        let request = Request::QueueAct(act);
        let parts = self.questions.ask_for(who.uid, request, ACT_WAIT).await;
        let counts = match parts.and_then(questions::counts) {
            Ok(counts) => counts,
            Err(failure) => return Reply::Failure(failure),
        };
        let [done, busy, unfit] = counts;
        let _ =
            self.audit(who, &format!("queue {name} {of}: {done} done, {busy} busy, {unfit} unfit"));
        if counts == [0, 0, 0] {
            return fail(FailureCode::NotFound, "no such message in the queue", "");
        }
        let mut text = format!("{name}: {done} messages");
        if busy > 0 {
            text.push_str(&format!("; {busy} are being sent at the moment, ask again"));
        }
        if unfit > 0 {
            let why = match moves {
                true => "gone, or as wanted already, or the spool has no room",
                false => "held, gone, or no further tier",
            };
            text.push_str(&format!("; {unfit} do not fit ({why})"));
        }
        if done == 0 {
            return fail(
                FailureCode::Refused,
                &text,
                "`ringpost queue show ID` says how it stands",
            );
        }
        if let Some(aside) = aside {
            text.push_str(&format!(". {aside}"));
        }
        Reply::Done { message: Text::cut(&text) }
    }

    /// The host and port of a move, asked beforehand whether it takes mail, and in TLS where the
    /// route of that mail demands it; what is to be said beside.
    async fn host_to_move_to(
        &self,
        to: &str,
        act: &QueueAct,
    ) -> Result<(String, Option<String>), Failure> {
        let refuse = |message: String, advice: &str| {
            Err(Failure::new(FailureCode::Refused, &message, advice))
        };
        let Some(named) = Named::parse(to) else {
            return refuse(
                format!("{to}: this is no host and port"),
                "HOST, HOST:PORT or [IP6]:PORT",
            );
        };
        let text = named.host_and_port();
        if act.unchecked {
            return Ok((text, None));
        }
        let has_tls = match self.takes_mail(&named).await {
            Ok(has_tls) => has_tls,
            Err(why) => {
                let advice = "`ringpost test backend` says more; --unchecked moves all the same";
                return refuse(format!("{text}: {why}"), advice);
            }
        };
        let orders = Arc::clone(&self.orders.borrow());
        let demands = orders.config.routes.iter().filter(|route| route.tls == RouteTls::Must);
        let demands: Vec<&str> = demands.map(|route| route.name.as_str()).collect();
        if has_tls || demands.is_empty() {
            return Ok((text, None));
        }
        // `NAME/TIER`, of an MX `NAME/TIER/DOMAIN`; what was moved before has no name of a route.
        let of = act.next_hop.as_deref().and_then(|hop| hop.split_once('/')).map(|(name, _)| name);
        match of.filter(|name| !name.starts_with('@')) {
            Some(name) if demands.contains(&name) => refuse(
                format!(
                    "{text} offers no STARTTLS, and route {name} has tls = \"must\": the mail \
                     would wait there too"
                ),
                "name another host, or change the route's tls; --unchecked moves all the same",
            ),
            Some(_) => Ok((text, None)),
            None => {
                let (routes, offers) = (demands.join(", "), "offers no STARTTLS");
                let aside = format!(
                    "{text} {offers}: mail of routes with tls = \"must\" ({routes}) waits there \
                     until it does; `ringpost queue unmove` takes it back"
                );
                Ok((text, Some(aside)))
            }
        }
    }

    fn put_rules(&self, rules: Rules) {
        let old = Arc::clone(&self.orders.borrow());
        let orders = Arc::new(Orders {
            generation: old.generation,
            config: old.config.clone(),
            tls: old.tls.clone(),
            zones: Arc::clone(&old.zones),
            rules: Arc::new(rules),
        });
        if old.rules.listed != orders.rules.listed {
            self.filter.due.set(true);
        }
        *self.orders.borrow_mut() = Arc::clone(&orders);
        self.tell_all(move || ToCore::Orders(Arc::clone(&orders)));
    }

    /// What suspends something, for the status.
    pub(super) fn rule_alarms(&self) -> Vec<String> {
        let rules = Arc::clone(&self.orders.borrow().rules);
        let mut lines = Vec::new();
        match rules.accepting {
            Accepting::Open => {}
            Accepting::Refuse => {
                lines.push("accepting is suspended: clients hear 421".to_owned());
            }
            Accepting::Closed => {
                lines.push("accepting is suspended: the port is closed".to_owned());
            }
            Accepting::Drain => {
                lines.push("accepting is drained: switches are told to go elsewhere".to_owned());
            }
        }
        if !rules.delivering {
            lines.push("delivering is suspended: all mail waits".to_owned());
        }
        let held: Vec<&str> = rules.held.iter().take(5).map(String::as_str).collect();
        if !held.is_empty() {
            lines.push(format!(
                "mail waits for {} held domains: {}",
                rules.held.len(),
                held.join(" ")
            ));
        }
        lines
    }
}

fn said(rule: &Rule) -> String {
    match rule {
        Rule::HoldDomain(domain) => format!("mail for {} waits until it is released", &**domain),
        Rule::ReleaseDomain(domain) => format!("mail for {} goes on", &**domain),
        Rule::Accepting(Accepting::Open) => "mail is taken again".to_owned(),
        Rule::Accepting(Accepting::Refuse) => "new clients hear 421 from now on".to_owned(),
        Rule::Accepting(Accepting::Closed) => {
            "the ports are closed; open sessions go on to their end".to_owned()
        }
        Rule::Accepting(Accepting::Drain) => {
            "the health page says 503; mail is taken until no switch sends any".to_owned()
        }
        Rule::Delivering(true) => "mail is sent on again".to_owned(),
        Rule::Delivering(false) => "no new delivery begins; what is under way ends".to_owned(),
        Rule::Listed { network, allow, seconds, .. } => {
            let what = if *allow { "let in past every limit" } else { "turned away" };
            let back = if *allow { "unallow" } else { "unblock" };
            let long = match seconds {
                0 => format!("until `ringpost {back}` takes it back"),
                seconds => format!("for {seconds} s"),
            };
            format!("{} is {what} {long}", &**network)
        }
        Rule::Unlisted(network) => format!("{} is neither blocked nor allowed", &**network),
    }
}

/// Why an act on messages cannot be meant.
fn misunderstood(act: &QueueAct) -> Option<Failure> {
    let refused =
        |message: &str, advice: &str| Some(Failure::new(FailureCode::Refused, message, advice));
    let meant = [!act.ids.is_empty(), act.next_hop.is_some(), act.all];
    if meant.into_iter().filter(|meant| *meant).count() != 1 {
        return refused("name message ids, or one next hop, or all", "");
    }
    if act.act.word().is_some_and(|word| *act.word != *word) {
        let advice = format!("the word is {}", act.act.word().unwrap_or_default());
        return refused("this cannot be taken back: type the word", &advice);
    }
    if (act.act == Act::Move) != act.to.is_some() {
        return refused("a move, and only a move, names a host", "");
    }
    None
}
