//! Human units.

use std::time::Duration;

/// `"250ms"`, `"30s"`, `"5min"`, `"1h"`; `"0"` switches off.
///
/// # Errors
/// A sentence.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "" if number == "0" => 0.0,
        _ => {
            return Err(format!("\"{text}\" is no duration: write for example \"250ms\", \"30s\", \"5min\""));
        }
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * seconds).ok())
        .ok_or_else(|| format!("\"{text}\" is no duration: write for example \"250ms\", \"30s\", \"5min\""))
}

/// Replaces each `${NAME}` by what `variable` says.
///
/// # Errors
/// When a variable is not set or a brace is not closed.
pub fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or("\"${\" without \"}\"")?;
        out.push_str(before);
        out.push_str(&variable(name).ok_or_else(|| format!("the environment variable {name} is not set"))?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}
