//! A report as one page that needs nothing else.

use std::fmt::Write;
use std::path::Path;

use super::report::{Point, Report};
use crate::Result;
use crate::memory::human;

const STYLE: &str = include_str!("html/report.css");
const SCRIPT: &str = include_str!("html/report.js");

/// `text` for the inside of an element or a quoted attribute.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Names come from files: no character that turns the rest of a line around or is invisible.
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The page: size and bits of every tensor, errors in a table that sorts, and, when there are `points`, size against divergence.
pub fn html(report: &Report, points: &[Point]) -> String {
    let title = format!("{} as {}", report.source, report.target);
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{0}</title>\n<style>\n{STYLE}</style></head>\n<body><main><h1>{0}</h1>\n",
        Escaped(&title)
    );
    summary(&mut page, report);
    if !points.is_empty() {
        plot(&mut page, points);
    }
    types(&mut page, report);
    tensors(&mut page, report);
    let _ = write!(page, "</main><script>\n{SCRIPT}</script></body></html>\n");
    page
}

/// Writes the page to a file, whole or not at all.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io); [`Error::Argument`](crate::Error::Argument) when `path` is no regular file.
pub fn write_html(path: &Path, report: &Report, points: &[Point]) -> Result<()> {
    crate::gguf::write_whole(path, html(report, points).as_bytes())
}

fn summary(page: &mut String, report: &Report) {
    let size = format!("{} ({} bytes)", human(report.bytes), report.bytes);
    let before = format!(
        "{} ({:.1} %)",
        human(report.source_bytes),
        100.0 * report.bytes as f64 / report.source_bytes.max(1) as f64
    );
    let mut items: Vec<(&str, String)> = vec![
        ("size", size),
        ("of", before),
        ("bits per weight", format!("{:.3}", report.bits_per_weight)),
        ("weights", report.weights.to_string()),
        ("method", report.method.clone()),
    ];
    if let Some(error) = report.error {
        items.push(("relative squared error", format!("{error:.3e}")));
    }
    if let Some(mean) = report.mean_kld {
        items.push(("mean KL divergence", format!("{mean:.5}")));
    }
    if report.dry_run {
        items.push(("written", "nothing: a dry run".into()));
    }
    items.push((if report.dry_run { "seconds expected" } else { "seconds" }, format!("{:.2}", report.seconds)));
    if let Some(peak) = report.peak_rss_bytes {
        items.push((if report.dry_run { "memory at most" } else { "peak memory" }, human(peak)));
    }
    if report.resumed > 0 {
        items.push(("resumed", format!("{} tensors of an interrupted run", report.resumed)));
    }
    page.push_str("<dl class=\"summary\">\n");
    for (name, value) in items {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", Escaped(&value));
    }
    page.push_str("</dl>\n");
    for warning in &report.warnings {
        let _ = writeln!(page, "<p class=\"warning\">{}</p>", Escaped(warning));
    }
}

/// How much of the file each type is.
fn types(page: &mut String, report: &Report) {
    let mut types: Vec<(&str, usize, u64, f64)> = Vec::new();
    for tensor in &report.tensors {
        match types.iter_mut().find(|(name, ..)| *name == tensor.ty) {
            Some((_, count, bytes, _)) => (*count, *bytes) = (*count + 1, *bytes + tensor.bytes),
            None => types.push((&tensor.ty, 1, tensor.bytes, tensor.bits)),
        }
    }
    types.sort_by_key(|(.., bytes, _)| std::cmp::Reverse(*bytes));
    let most = types.first().map_or(1, |(_, _, bytes, _)| *bytes).max(1);
    page.push_str("<h2>Types</h2>\n<table><thead><tr><th>type</th><th class=\"n\">tensors</th><th class=\"n\">bits</th><th>size</th></tr></thead><tbody>\n");
    for (name, count, bytes, bits) in types {
        let width = 100.0 * bytes as f64 / most as f64;
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td class=\"n\">{count}</td><td class=\"n\">{bits:.3}</td>\
             <td><span class=\"bar\" style=\"width:{width:.2}%\"></span><span class=\"over\">{}</span></td></tr>",
            Escaped(name),
            human(bytes)
        );
    }
    page.push_str("</tbody></table>\n");
}

/// The table of all tensors. Cells have their value for sorting.
fn tensors(page: &mut String, report: &Report) {
    let most_bytes = report.tensors.iter().map(|tensor| tensor.bytes).max().unwrap_or(1).max(1);
    let most_bits = report.tensors.iter().map(|tensor| tensor.bits).fold(1.0, f64::max);
    page.push_str("<h2>Tensors</h2>\n<table class=\"sortable\"><thead><tr>");
    for (name, class) in [
        ("#", "n"),
        ("tensor", ""),
        ("shape", ""),
        ("was", ""),
        ("type", ""),
        ("size", ""),
        ("bits", ""),
        ("error", "n"),
        ("SNR dB", "n"),
        ("worst", "n"),
        ("method", ""),
    ] {
        let _ = write!(page, "<th class=\"{class}\"><button>{name}</button></th>");
    }
    page.push_str("</tr></thead><tbody>\n");
    for (index, tensor) in report.tensors.iter().enumerate() {
        let shape = tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
        let elements = tensor.shape.iter().map(|dimension| *dimension as f64).product::<f64>();
        let hint = tensor
            .fallback
            .as_deref()
            .map(|why| format!(" title=\"{}\" class=\"fallback\"", Escaped(why)))
            .unwrap_or_default();
        let _ = write!(
            page,
            "<tr><td class=\"n\" data-v=\"{index}\">{index}</td><td data-v=\"{name}\">{name}</td><td data-v=\"{elements}\">{shape}</td>\
             <td data-v=\"{was}\">{was}</td><td data-v=\"{ty}\"{hint}>{ty}</td>\
             <td data-v=\"{bytes}\"><span class=\"bar\" style=\"width:{width:.2}%\"></span><span class=\"over\">{size}</span></td>\
             <td data-v=\"{bits}\"><span class=\"bar bits\" style=\"width:{bits_width:.2}%\"></span><span class=\"over\">{bits:.3}</span></td>",
            name = Escaped(&tensor.name),
            was = Escaped(&tensor.source_type),
            ty = Escaped(&tensor.ty),
            bytes = tensor.bytes,
            width = 100.0 * tensor.bytes as f64 / most_bytes as f64,
            size = human(tensor.bytes),
            bits = tensor.bits,
            bits_width = 100.0 * tensor.bits / most_bits,
        );
        let mut number = |value: Option<f64>, text: &dyn Fn(f64) -> String| {
            let _ = match value {
                Some(value) => write!(page, "<td class=\"n\" data-v=\"{value:e}\">{}</td>", text(value)),
                None => write!(page, "<td class=\"n\" data-v=\"\">–</td>"),
            };
        };
        number(tensor.error, &|value| format!("{value:.3e}"));
        number(tensor.snr_db, &|value| format!("{value:.2}"));
        number(tensor.worst, &|value| format!("{value:.3e}"));
        let method = Escaped(tensor.method.as_deref().unwrap_or_default());
        let _ = write!(page, "<td data-v=\"{method}\">{method}</td>");
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table>\n");
}

/// Size against divergence, both on logarithmic scales.
fn plot(page: &mut String, points: &[Point]) {
    const WIDTH: f64 = 860.0;
    const HEIGHT: f64 = 420.0;
    const LEFT: f64 = 70.0;
    const BOTTOM: f64 = 45.0;
    const MARGIN: f64 = 20.0;
    // What has no logarithm is put where the smallest that has one is.
    let logs = |values: Vec<f64>| {
        let positive = values.iter().copied().filter(|value| value.is_finite() && *value > 0.0);
        let least = positive.clone().fold(f64::INFINITY, f64::min);
        let most = positive.fold(0.0, f64::max);
        let (low, high) = if most > 0.0 { (least.log10(), most.log10()) } else { (0.0, 1.0) };
        let room = ((high - low) * 0.08).max(0.02);
        let place = move |value: f64| {
            let value = if value.is_finite() && value > 0.0 { value.log10() } else { low };
            (value - low + room) / (high - low + 2.0 * room)
        };
        (place, low - room, high + room)
    };
    let (x, x_low, x_high) = logs(points.iter().map(|point| point.bytes as f64).collect());
    let (y, y_low, y_high) = logs(points.iter().map(|point| point.mean_kld).collect());
    let across = |value: f64| LEFT + x(value) * (WIDTH - LEFT - MARGIN);
    let up = |value: f64| HEIGHT - BOTTOM - y(value) * (HEIGHT - BOTTOM - MARGIN);
    let _ = writeln!(
        page,
        "<h2>Size and divergence</h2>\n<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"size against divergence\">\
         <rect class=\"frame\" x=\"{LEFT}\" y=\"{MARGIN}\" width=\"{}\" height=\"{}\"/>",
        WIDTH - LEFT - MARGIN,
        HEIGHT - BOTTOM - MARGIN
    );
    for value in ticks(x_low, x_high) {
        let at = across(value);
        let (top, end) = (MARGIN, HEIGHT - BOTTOM);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{end}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            end + 16.0,
            human(value as u64)
        );
    }
    for value in ticks(y_low, y_high) {
        let (at, end) = (up(value), WIDTH - MARGIN);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for point in points {
        let (px, py) = (across(point.bytes as f64), up(point.mean_kld));
        let _ = writeln!(
            page,
            "<g><title>{label}: {} bytes, mean divergence {}</title><circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{label}</text></g>",
            point.bytes,
            point.mean_kld,
            px + 7.0,
            py - 5.0,
            label = Escaped(&point.label)
        );
    }
    let _ = writeln!(
        page,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">size of the file</text>\
         <text class=\"axis\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">mean KL divergence</text></svg>",
        (WIDTH + LEFT) / 2.0,
        HEIGHT - 8.0,
        (HEIGHT - BOTTOM) / 2.0
    );
}

/// 1, 2 and 5 times powers of ten between two logarithms.
fn ticks(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let decades = low.floor() as i32..=high.floor() as i32;
    let values = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)));
    values.filter(move |value| (low..=high).contains(&value.log10()))
}
