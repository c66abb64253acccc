//! What every process counts: its build, its condition, its memory and processor time.

use std::fmt;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::{Health, Verdict};

pub use gon_agent::status::Sample;

/// Numbers that are looked up together.
pub struct Samples<F>(pub F);

impl<F> fmt::Debug for Samples<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Samples")
    }
}

impl<F: Fn() -> Vec<Sample> + Send + Sync + 'static> Collector for Samples<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for sample in (self.0)() {
            if sample.counter {
                let metric = ConstCounter::new(sample.value);
                // The encoder adds the ending itself.
                let name = sample.name.trim_end_matches("_total");
                metric.encode(encoder.encode_descriptor(name, sample.help, None, metric.metric_type())?)?;
            } else {
                let metric = ConstGauge::new(sample.value);
                metric.encode(encoder.encode_descriptor(
                    sample.name,
                    sample.help,
                    None,
                    metric.metric_type(),
                )?)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OfProcess(Health);

impl Collector for OfProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        let health = &self.0;
        let ready = health.verdict() != Verdict::Unready;
        gauge("gon_ready", "Whether the service can do its job", None, f64::from(u8::from(ready)))?;
        let started = health.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        gauge("process_start_time_seconds", "When the process started", None, started)?;
        let usage = usage();
        gauge("process_resident_memory_bytes", "Memory in use", None, usage.resident)?;
        gauge("process_open_fds", "Open files and sockets", None, usage.files)?;
        let cpu = ConstCounter::new(usage.cpu_seconds);
        let of_cpu = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time, user and system",
            None,
            cpu.metric_type(),
        )?;
        cpu.encode(of_cpu)?;
        let family = Family::<Vec<(String, String)>, Gauge>::default();
        for (name, up) in health.conditions() {
            family.get_or_create(&vec![("dependency".to_owned(), name.to_owned())]).set(i64::from(up));
        }
        let descriptor = encoder.encode_descriptor(
            "gon_dependency_up",
            "Whether what the service depends on is there",
            None,
            family.metric_type(),
        )?;
        family.encode(descriptor)
    }
}

/// Makes what every process counts part of a registry.
pub fn register(registry: &mut Registry, health: &Health) {
    let labels = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service", health.service.to_string()),
        ("node", health.node.to_string()),
    ];
    registry.register("gon_build", "The build that runs", Info::new(labels));
    registry.register_collector(Box::new(OfProcess(health.clone())));
}

struct Usage {
    resident: f64,
    files: f64,
    cpu_seconds: f64,
}

/// As the kernel counts it. What it does not say is 0.
fn usage() -> Usage {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    Usage {
        resident: number(21) * PAGE,
        files: std::fs::read_dir("/proc/self/fd").map_or(0.0, |files| files.count() as f64),
        cpu_seconds: (number(11) + number(12)) / TICKS,
    }
}

/// On every machine that we run on.
const PAGE: f64 = 4096.0;
const TICKS: f64 = 100.0;
