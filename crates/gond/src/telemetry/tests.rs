use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::Value as Json;
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt as _;

use super::encode::{Form, LONGEST, Line, Value};
use super::layer::LogLayer;

/// What is logged while `act` runs.
fn logged(form: Form, act: impl FnOnce()) -> String {
    let written = Arc::new(Mutex::new(String::new()));
    let write = {
        let written = Arc::clone(&written);
        move |line: &str| written.lock().unwrap().push_str(line)
    };
    let subscriber =
        tracing_subscriber::registry().with(LogLayer::new(form, "api-server", "control-1", write));
    tracing::subscriber::with_default(subscriber, act);
    written.lock().unwrap().clone()
}

fn object(line: &str) -> Json {
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_line_has_the_fields_of_its_spans() {
    let text = logged(Form::Json, || {
        let request = tracing::info_span!("request", request_id = "req-1", account = tracing::field::Empty);
        let _inside = request.enter();
        request.record("account", "acct-1");
        let step = tracing::info_span!("step", operation_id = "op-1", request_id = "req-2");
        let _deeper = step.enter();
        let error = std::io::Error::other(std::io::Error::other("no route"));
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            count = 3,
            ok = true,
            node = "n7",
            "it failed"
        );
    });
    let line = object(&text);
    for (field, value) in [
        ("level", "WARN"),
        ("service", "api-server"),
        ("node", "control-1"),
        ("message", "it failed"),
        // Of two the inner one.
        ("request_id", "req-2"),
        ("operation_id", "op-1"),
        ("account", "acct-1"),
        ("error", "no route"),
        // No event says that it comes from elsewhere.
        ("field_node", "n7"),
    ] {
        assert_eq!(line[field], *value, "{field} in {text}");
    }
    assert_eq!((&line["count"], &line["ok"]), (&Json::from(3), &Json::from(true)));
    assert!(line["target"].as_str().unwrap().contains("telemetry"));
    let time = line["time"].as_str().unwrap();
    time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).unwrap();
    assert_eq!(text.matches("\"request_id\"").count(), 1, "a name stands once: {text}");
}

#[test]
fn nothing_inside_a_line_can_look_like_another() {
    let evil =
        "ok\n{\"level\":\"ERROR\",\"message\":\"forged\"}\r\n\u{1b}[2J\u{9b}1m\u{2028}\u{202e}\0\u{7f}\"\\";
    for form in [Form::Json, Form::Human { colour: false }] {
        let text = logged(form, || {
            let span = tracing::info_span!("request", request_id = evil);
            span.in_scope(|| tracing::info!(account = evil, debugged = ?evil, "{evil}"));
        });
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert_eq!(text.chars().filter(|c| c.is_control()).count(), 1, "only its end: {text:?}");
        assert!(!text.contains(['\u{2028}', '\u{202e}']), "{text:?}");
        if form == Form::Json {
            let line = object(&text);
            assert_eq!(
                (&line["message"], &line["request_id"], &line["account"]),
                (&evil.into(), &evil.into(), &evil.into())
            );
            assert_eq!(line["level"], "INFO");
        }
    }
}

#[test]
fn passwords_of_urls_are_not_written() {
    let text = logged(Form::Json, || {
        tracing::error!(
            url = "amqps://gon:hunter2@bus:5671/gon",
            "cannot reach postgres://gon:hunter2@db/gon?x=1 nor amqp://a:hunter2@[::1]:5672 but https://x/y@z"
        );
    });
    assert!(!text.contains("hunter2"), "{text}");
    let line = object(&text);
    assert_eq!(line["url"], "amqps://gon:***@bus:5671/gon");
    assert_eq!(
        line["message"],
        "cannot reach postgres://gon:***@db/gon?x=1 nor amqp://a:***@[::1]:5672 but https://x/y@z"
    );
}

#[test]
fn a_line_is_bounded() {
    let long = "é".repeat(LONGEST);
    let text = logged(Form::Json, || tracing::info!(long, "x"));
    assert!(text.len() < 2 * LONGEST, "{}", text.len());
    assert!(object(&text)["long"].as_str().unwrap().ends_with("é[…]"));
}

#[test]
fn people_read_name_and_value() {
    let text = logged(Form::Human { colour: false }, || tracing::info!(a = "b", c = "d e", n = 5, "done"));
    assert!(text.ends_with(" INFO  done a=b c=\"d e\" n=5\n"), "{text}");
}

proptest! {
    #[test]
    fn any_text_comes_back_from_a_line(message in any::<String>(), value in any::<String>()) {
        let line = Line {
            time: time::OffsetDateTime::UNIX_EPOCH,
            level: Level::INFO,
            service: "s",
            node: "n",
            target: "t",
            message: &message,
            fields: &[("value", Value::Text(value.clone()))],
        };
        let text = line.encode(Form::Json);
        prop_assert_eq!(text.matches('\n').count(), 1);
        let parsed = object(&text);
        if !message.contains("://") && !value.contains("://") {
            prop_assert_eq!(&parsed["message"], &Json::from(message));
            prop_assert_eq!(&parsed["value"], &Json::from(value));
        }
    }
}
