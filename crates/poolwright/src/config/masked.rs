//! A configuration file as it may be shown: messages quote its lines, and logs keep messages.

/// The same text, byte for byte as long, with asterisks for passwords: those in URLs and those of users. A
/// `${VARIABLE}` is no secret and stays.
pub(super) fn text(whole: &str) -> String {
    let mut section = "";
    let mut shown = String::with_capacity(whole.len());
    for line in whole.split_inclusive('\n') {
        let trimmed = line.trim_start();
        if trimmed.starts_with('[') {
            section = trimmed.trim_end();
        }
        let users = section.ends_with(".users]")
            || section.starts_with("[console")
            || ["users", "admins", "viewers"].iter().any(|name| trimmed.starts_with(name));
        shown.push_str(&if users { strings(line) } else { urls(line) });
    }
    shown
}

fn stars(secret: &str) -> String {
    if secret.starts_with("${") { secret.to_owned() } else { "*".repeat(secret.len()) }
}

/// From the colon behind `://user` to the last `@`.
fn urls(line: &str) -> String {
    let secret = || {
        let user = line.find("://")? + 3;
        let end = line.rfind('@').filter(|end| *end > user)?;
        let begin = user + line[user..end].find(':')? + 1;
        Some(begin..end)
    };
    match secret() {
        None => line.to_owned(),
        Some(secret) => {
            format!("{}{}{}", &line[..secret.start], stars(&line[secret.clone()]), &line[secret.end..])
        }
    }
}

/// Everything in quotation marks.
fn strings(line: &str) -> String {
    let mut inside = false;
    let mut mark = ' ';
    let parts = line.split_inclusive(['"', '\'']).map(|part| {
        let end = part.chars().next_back().filter(|end| matches!(end, '"' | '\''));
        let text = end.map_or(part, |end| &part[..part.len() - end.len_utf8()]);
        let shown = if inside { stars(text) } else { text.to_owned() };
        if let Some(end) = end.filter(|end| !inside || *end == mark) {
            inside = !inside;
            mark = end;
        }
        format!("{shown}{}", end.map_or_else(String::new, String::from))
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn passwords_are_masked_and_places_stay() {
        let file = "[pool.a]\nserver = \"postgres://u:s3c@ret@h/d\" # note\nplain = \"x://h\"\n\
                    [pool.b]\nserver = \"postgres://u:${B}@h/d\"\nusers = { c = \"p1\", d = 'p\"2' }\n\
                    [pool.a.users]\ne = \"p3\"\n";
        let shown = super::text(file);
        assert_eq!(shown.len(), file.len());
        assert_eq!(
            shown,
            "[pool.a]\nserver = \"postgres://u:*******@h/d\" # note\nplain = \"x://h\"\n\
             [pool.b]\nserver = \"postgres://u:${B}@h/d\"\nusers = { c = \"**\", d = '*\"*' }\n\
             [pool.a.users]\ne = \"**\"\n"
        );
    }
}
