//! `--report`: one page that shows what happened, and needs nothing but itself.

use emu_core::event::{LEVELS, Stats, level_name};
use serde_json::{Value, json};

use crate::report::{self, ReasonName};

/// The page, and the word in it that stands for the data.
const PAGE: &str = include_str!("page.html");
const DATA: &str = "\"@DATA@\"";

/// Exits of each level, most frequent first.
fn exits(stats: &Stats, name: ReasonName) -> Vec<Value> {
    let all = report::counted(&stats.exits, Some(&stats.handled), name);
    let of_level = |level: u8| {
        let mut exits: Vec<_> = all.iter().filter(|((l, _), _)| *l == level).collect();
        exits.sort_by_key(|((_, reason), counted)| (u64::MAX - counted.times, *reason));
        let exits = exits.into_iter().map(|((_, reason), counted)| {
            json!({ "reason": reason, "count": counted.times, "mean": report::mean(counted.handled) })
        });
        let exits: Vec<_> = exits.collect();
        let instructions = stats.instructions[usize::from(level)];
        let is_there = instructions != 0 || !exits.is_empty();
        let level = json!({ "level": level, "name": level_name(level), "instructions": instructions, "exits": exits });
        is_there.then_some(level)
    };
    (1..LEVELS as u8).filter_map(of_level).collect()
}

/// What was made pending for guests, by vector.
fn injections(stats: &Stats, name: ReasonName) -> Vec<Value> {
    let mut all = Vec::new();
    for (level, counts) in (0u8..).zip(stats.injections.iter()) {
        for (reason, count) in (0u32..).zip(counts).filter(|(_, n)| **n != 0) {
            let name = name(reason);
            let what = if name == "interrupt" { format!("interrupt {reason:#x}") } else { name.to_owned() };
            all.push((*count, json!({ "level": level_name(level), "what": what, "count": count })));
        }
    }
    all.sort_by_key(|(count, _)| u64::MAX - count);
    all.into_iter().map(|(_, value)| value).collect()
}

/// The page of a run: what is told of it at its end, its counts, its timeline.
pub fn page(run: &Value, stats: &Stats, name: ReasonName, timeline: Value) -> String {
    let data = json!({
        "run": run,
        "levels": exits(stats, name),
        "injections": injections(stats, name),
        "failed": report::failed_json(stats),
        "timeline": timeline,
    });
    // No text in it may end the script that it is in.
    PAGE.replacen(DATA, &data.to_string().replace('<', "\\u003c"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone() {
        assert_eq!(PAGE.matches(DATA).count(), 1);
        for outside in ["http:", "https:", "src=", "@import", "url(", "fetch("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        let run = json!({ "text": "</script><script>alert(1)</script>" });
        let page = page(&run, &Stats::default(), |_| "", json!({}));
        assert_eq!(page.matches("</script>").count(), PAGE.matches("</script>").count());
    }
}
