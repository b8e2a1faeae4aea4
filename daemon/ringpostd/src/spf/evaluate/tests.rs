//! The examples of RFC 7208 appendix A, and the limits of 4.6.4.

use super::super::VOIDS_MAX;
use super::*;

/// The zones of appendix A.
const ZONES: [(Kind, &str, &str); 16] = [
    (Kind::Mx, "example.com", "mail-a.example.com mail-b.example.com"),
    (Kind::A, "example.com", "192.0.2.10 192.0.2.11"),
    (Kind::A, "amy.example.com", "192.0.2.65"),
    (Kind::A, "bob.example.com", "192.0.2.66"),
    (Kind::A, "mail-a.example.com", "192.0.2.129"),
    (Kind::A, "mail-b.example.com", "192.0.2.130"),
    (Kind::Mx, "example.org", "mail-c.example.org"),
    (Kind::A, "mail-c.example.org", "192.0.2.140"),
    (Kind::Ptr, "10.2.0.192.in-addr.arpa", "example.com"),
    (Kind::Ptr, "65.2.0.192.in-addr.arpa", "amy.example.com"),
    (Kind::Ptr, "66.2.0.192.in-addr.arpa", "bob.example.com"),
    (Kind::Ptr, "129.2.0.192.in-addr.arpa", "mail-a.example.com"),
    (Kind::Ptr, "140.2.0.192.in-addr.arpa", "mail-c.example.org"),
    (Kind::Ptr, "4.0.0.10.in-addr.arpa", "bob.example.com"),
    (Kind::A, "mary.mobile-users._spf.example.com", "127.0.0.2"),
    (Kind::Aaaa, "six.example.com", "2001:db8::1"),
];

/// The verdict with these SPF records, and every answer that was asked for.
fn checked(ip: &str, from: &str, records: &[(&str, &str)]) -> (Report, Answers) {
    let input = Input {
        ip: ip.parse().unwrap(),
        helo: "client.example.com".to_owned(),
        from: from.to_owned(),
    };
    let mut answers = Answers::new();
    loop {
        match evaluate(&input, &answers, "mx.example.net", 7) {
            Ok(report) => return (report, answers),
            Err(need) => {
                let answer = match need.kind {
                    Kind::Txt => {
                        let texts = records.iter().filter(|(name, _)| *name == need.name);
                        texts.map(|(_, text)| (*text).to_owned()).collect::<Vec<_>>()
                    }
                    kind => ZONES
                        .iter()
                        .filter(|(of, name, _)| *of == kind && *name == need.name)
                        .flat_map(|(.., text)| text.split(' ').map(str::to_owned))
                        .collect(),
                };
                let answer = match need.name.as_str() {
                    "down.example.com" => Answer::Temporary,
                    _ if answer.is_empty() => Answer::Void,
                    _ => Answer::Records(answer),
                };
                let key = (need.kind, need.name);
                assert!(answers.insert(key, answer).is_none(), "asked twice");
            }
        }
    }
}

fn verdict(ip: &str, record: &str) -> Verdict {
    checked(ip, "amy@example.com", &[("example.com", record)]).0.verdict
}

/// RFC 7208 A.1.
#[test]
fn the_simple_examples_of_the_rfc() {
    let passes = |record: &str, those: &[&str], others: &[&str]| {
        for ip in those {
            assert_eq!(verdict(ip, record), Verdict::Pass, "{record} {ip}");
        }
        for ip in others {
            assert_eq!(verdict(ip, record), Verdict::Fail, "{record} {ip}");
        }
    };
    passes("v=spf1 +all", &["192.0.2.1", "2001:db8::1"], &[]);
    passes("v=spf1 a -all", &["192.0.2.10", "192.0.2.11"], &["192.0.2.129"]);
    passes("v=spf1 a:example.org -all", &[], &["192.0.2.10", "192.0.2.140"]);
    passes("v=spf1 mx -all", &["192.0.2.129", "192.0.2.130"], &["192.0.2.10"]);
    passes("v=spf1 mx:example.org -all", &["192.0.2.140"], &["192.0.2.129"]);
    passes("v=spf1 mx mx:example.org -all", &["192.0.2.129", "192.0.2.140"], &["192.0.2.65"]);
    let wide = "v=spf1 mx/30 mx:example.org/30 -all";
    passes(wide, &["192.0.2.131", "192.0.2.143"], &["192.0.2.132"]);
    passes("v=spf1 ptr -all", &["192.0.2.65", "192.0.2.10"], &["192.0.2.140", "10.0.0.4"]);
    passes("v=spf1 ip4:192.0.2.128/28 -all", &["192.0.2.129"], &["192.0.2.65"]);
    passes("v=spf1 ip6:2001:db8::/32 -all", &["2001:db8::5"], &["2001:db9::5", "192.0.2.1"]);
    passes("v=spf1 a:six.example.com//64 -all", &["2001:db8::ffff"], &["2001:db8:1::1"]);
}

/// RFC 7208 A.2, A.3, A.4.
#[test]
fn records_lead_to_other_records() {
    let records = [
        ("example.org", "v=spf1 include:example.com include:example.net -all"),
        ("la.example.org", "v=spf1 redirect=example.org"),
        ("example.com", "v=spf1 mx -all"),
        ("example.net", "v=spf1 ip4:198.51.100.0/24 -all"),
    ];
    let of = |ip, from| checked(ip, from, &records).0.verdict;
    assert_eq!(of("192.0.2.129", "a@example.org"), Verdict::Pass);
    assert_eq!(of("198.51.100.1", "a@la.example.org"), Verdict::Pass);
    assert_eq!(of("192.0.2.1", "a@la.example.org"), Verdict::Fail);
    let users = "v=spf1 mx exists:%{l}.mobile-users._spf.%{d} -all";
    let of = |from| checked("203.0.113.1", from, &[("example.com", users)]).0;
    assert_eq!(of("mary@example.com").verdict, Verdict::Pass);
    assert_eq!(of("fred@example.com").verdict, Verdict::Fail);
    let records = [
        ("example.com", "v=spf1 -include:ip4._spf.%{d} -include:ptr._spf.%{d} +all"),
        ("ip4._spf.example.com", "v=spf1 -ip4:192.0.2.0/24 +all"),
        ("ptr._spf.example.com", "v=spf1 -ptr:example.com +all"),
    ];
    let of = |ip| checked(ip, "a@example.com", &records).0.verdict;
    assert_eq!(of("192.0.2.65"), Verdict::Pass);
    assert_eq!(of("192.0.2.140"), Verdict::Fail, "no name in the domain");
    assert_eq!(of("10.0.0.4"), Verdict::Fail, "no address of theirs");
}

#[test]
fn limits_end_in_an_error_that_names_the_term() {
    let includes: Vec<(String, String)> = (0..12)
        .map(|n| {
            (format!("d{n}.example.com"), format!("v=spf1 include:d{}.example.com ?all", n + 1))
        })
        .collect();
    let records: Vec<(&str, &str)> = includes.iter().map(|(n, t)| (&**n, &**t)).collect();
    let report = checked("192.0.2.1", "a@d0.example.com", &records).0;
    assert_eq!(report.verdict, Verdict::PermError);
    assert!(report.why.contains("more than 10 terms"), "{}", report.why);
    let voids = "v=spf1 a:x.example.com a:y.example.com a:z.example.com -all";
    let report = checked("192.0.2.1", "a@example.com", &[("example.com", voids)]).0;
    assert_eq!((report.verdict, report.voids), (Verdict::PermError, VOIDS_MAX + 1));
    assert!(report.why.contains("z.example.com"), "{}", report.why);
}

#[test]
fn what_is_missing_twice_broken_or_down_is_told_apart() {
    assert_eq!(verdict("192.0.2.1", "some text"), Verdict::None);
    assert_eq!(verdict("192.0.2.1", "v=spf1 mx"), Verdict::Neutral);
    assert_eq!(verdict("192.0.2.1", "v=spf1 ~all"), Verdict::SoftFail);
    assert_eq!(verdict("192.0.2.1", "v=spf1 wrong -all"), Verdict::PermError);
    assert_eq!(verdict("192.0.2.1", "v=spf1 a:down.example.com -all"), Verdict::TempError);
    assert_eq!(verdict("192.0.2.1", "v=spf1 include:none.example.com -all"), Verdict::PermError);
    let twice = [("example.com", "v=spf1 -all"), ("example.com", "v=spf1 +all")];
    assert_eq!(checked("192.0.2.1", "a@example.com", &twice).0.verdict, Verdict::PermError);
    assert_eq!(checked("192.0.2.1", "a@localhost", &[]).0.verdict, Verdict::None);
}

#[test]
fn the_null_sender_is_judged_by_its_ehlo_and_a_refusal_is_explained() {
    let records = [
        ("client.example.com", "v=spf1 -all exp=why.%{d}"),
        ("why.client.example.com", "%{i} is not %{h}, says %{r}"),
    ];
    let report = checked("192.0.2.1", "", &records).0;
    assert_eq!((report.verdict, &*report.domain), (Verdict::Fail, "client.example.com"));
    assert_eq!(report.explanation, "192.0.2.1 is not client.example.com, says mx.example.net");
    let terms: Vec<_> = report.steps.iter().map(|step| step.outcome.as_str()).collect();
    assert_eq!(terms, ["the record", "match, fail"]);
}
