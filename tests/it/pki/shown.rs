//! The report as people and programs see it.
//!
//! Field names and the line of a run that had nothing to do are kept stable here.

use super::*;

#[test]
fn the_report_is_text_for_people_and_json_for_programs() {
    let place = Place::new();
    let report = place.run(&[], &["dev"]).unwrap();
    let text = report.render();
    for part in [
        "Made a new certificate authority in ",
        "valid for  localhost, 127.0.0.1, ::1, buildbox",
        "(365 days)",
        "id spiffe://buildbox.fsvc.internal/client/dev",
        "fsvc serve --tls-dir ",
        "fsvc put README.md /docs/README.md",
        "fsvc gen-certs --client alice",
        &report.ca.sha256,
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["server"]["state"], "made");
    assert_eq!(json["server"]["hosts"][1], "127.0.0.1");
    assert_eq!(json["policy"]["state"], "made");
    assert_eq!(json["ca"]["sha256"].as_str().unwrap().len(), 95);

    let a_second_later = place.now + SignedDuration::from_secs(1);
    let text = place.run_at(a_second_later).unwrap().render();
    let kept = "kept CA (3649 days left) · kept server · kept client dev · nothing to do
";
    assert_eq!(text, kept);
    let report = place.run(&["x.example.com"], &[]).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["server"]["state"], "renewed");
    assert_eq!(json["server"]["why"], "new_hosts");
    assert!(
        report
            .render()
            .contains("renewed server: the old one lacks x.example.com")
    );
}
