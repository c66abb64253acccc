//! From `tracing` to lines: keeps the fields of spans, adds them to the events inside.

use std::error::Error;
use std::fmt;

use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::encode::{Fields, Form, Line, Value};

/// Writes every event as a line.
pub struct LogLayer<W> {
    form: Form,
    service: String,
    node: String,
    write: W,
}

impl<W: Fn(&str)> LogLayer<W> {
    /// Lines of `service` on `node`, given to `write` one by one.
    pub fn new(form: Form, service: &str, node: &str, write: W) -> Self {
        Self { form, service: service.to_owned(), node: node.to_owned(), write }
    }
}

/// The fields of a span.
struct Kept(Fields);

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&str) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut collect = Collect::default();
        attributes.record(&mut collect);
        span.extensions_mut().insert(Kept(collect.fields));
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut collect = Collect::default();
        record.record(&mut collect);
        if let Some(kept) = span.extensions_mut().get_mut::<Kept>() {
            kept.0.append(&mut collect.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(kept) = span.extensions().get::<Kept>() {
                fields.extend(kept.0.iter().cloned());
            }
        }
        let mut collect = Collect::default();
        event.record(&mut collect);
        fields.append(&mut collect.fields);
        let line = Line {
            time: OffsetDateTime::now_utc(),
            level: *event.metadata().level(),
            service: &self.service,
            node: &self.node,
            target: event.metadata().target(),
            message: &collect.message,
            fields: &fields,
        };
        (self.write)(&line.encode(self.form));
    }
}

#[derive(Default)]
struct Collect {
    message: String,
    fields: Fields,
}

impl Collect {
    fn add(&mut self, field: &Field, value: Value) {
        match value {
            Value::Text(text) if field.name() == "message" => self.message = text,
            value => self.fields.push((field.name(), value)),
        }
    }
}

impl Visit for Collect {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Text(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(value.to_owned()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Bare(value.to_string()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Bare(value.to_string()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Bare(value.to_string()));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no infinity.
        let bare = value.is_finite().then(|| Value::Bare(value.to_string()));
        self.add(field, bare.unwrap_or_else(|| Value::Text(value.to_string())));
    }
    /// With its causes.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        self.add(field, Value::Text(text));
    }
}
