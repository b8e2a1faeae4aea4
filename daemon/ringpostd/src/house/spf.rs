//! What SPF says of a client, term by term, for the operator.
//!
//! *Limits*: [`QUESTIONS_MAX`] questions to the DNS; the evaluation has its own.

use std::net::IpAddr;
use std::time::Instant;

use control::{Failure, FailureCode, Reply, Rows};

use super::House;
use crate::dns::{Data, Outcome, Question};
use crate::spf::{Answer, Answers, Input, Need, Report, Verdict, evaluate};

/// Questions to the DNS: more than a record within its limits can need.
const QUESTIONS_MAX: usize = 300;

impl House {
    /// Evaluates the record of the sender's domain over the daemon's resolver.
    pub(super) async fn spf(&self, ip: &str, helo: &str, from: &str) -> Reply {
        let fail = |message: &str| {
            let advice = "spf IP HELO FROM, like spf 192.0.2.1 mx.example.net a@example.net";
            Reply::Failure(Failure::new(FailureCode::Refused, message, advice))
        };
        let Ok(ip) = ip.parse::<IpAddr>() else { return fail("this is no IP address") };
        let from = from.trim_matches(['<', '>']).to_owned();
        let input = Input { ip, helo: helo.to_owned(), from };
        let receiver = self.orders.borrow().config.node.hostname.as_str().to_owned();
        let now_s = engine::wall_us() / 1_000_000;
        let (mut answers, began) = (Answers::new(), Instant::now());
        for _ in 0..QUESTIONS_MAX {
            match evaluate(&input, &answers, &receiver, now_s) {
                Ok(report) => return told(&report, answers.len(), began),
                Err(need) => {
                    let answer = self.ask_for_spf(&need).await;
                    answers.insert((need.kind, need.name), answer);
                }
            }
        }
        fail("the record asks for more than the DNS should be asked")
    }

    async fn ask_for_spf(&self, need: &Need) -> Answer {
        // What is no name has no records.
        let Ok(question) = Question::new(need.name.as_bytes(), need.kind) else {
            return Answer::Void;
        };
        match self.lookups.ask_records(&question).await {
            Outcome::Found(answer) => Answer::Records(answer.data.iter().map(text).collect()),
            Outcome::NoName { .. } | Outcome::NoData { .. } => Answer::Void,
            Outcome::Failed(_) | Outcome::NeedsTcp(_) => Answer::Temporary,
        }
    }
}

fn text(data: &Data) -> String {
    match data {
        Data::A(v4) => v4.to_string(),
        Data::Aaaa(v6) => v6.to_string(),
        Data::Mx { host, .. } => host.to_string(),
        Data::Ptr(name) => name.to_string(),
        Data::Txt(octets) => String::from_utf8_lossy(octets).into_owned(),
    }
}

fn told(report: &Report, questions: usize, began: Instant) -> Reply {
    let mut notes = vec![format!("{} for {}", report.verdict.name(), report.domain)];
    notes.extend(Some(report.why.clone()).filter(|why| !why.is_empty()));
    if !report.explanation.is_empty() {
        notes.push(format!("The domain explains: {}", report.explanation));
    }
    if matches!(report.verdict, Verdict::TempError) {
        notes.push("See: `ringpost test dns DOMAIN`".to_owned());
    }
    notes.push(format!(
        "{} of {} terms that ask the DNS, {} of {} names without records, {questions} questions, \
         {} ms",
        report.lookups,
        crate::spf::LOOKUPS_MAX,
        report.voids,
        crate::spf::VOIDS_MAX,
        began.elapsed().as_millis()
    ));
    let rows = report.steps.iter().map(|step| {
        let indent = ".".repeat(step.depth);
        vec![format!("{indent}{}", step.domain), step.term.clone(), step.outcome.clone()]
    });
    Reply::Rows(Box::new(Rows::new(&["record of", "term", "outcome"]).with(rows).noting(notes)))
}
