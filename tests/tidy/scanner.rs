//! Reads Rust source as far as the rules need it: what is code, where functions and test modules
//! begin and end. A scanner of characters and braces, not a parser: macros may fool it, plainly
//! formatted code does not.

use std::ops::Range;

/// One source file.
pub(crate) struct Source {
    /// Its path from the top of the repository, with `/`.
    pub(crate) path: String,
    /// The text as it stands.
    pub(crate) text: String,
    /// The same with comments and the insides of literals blanked, character by character.
    pub(crate) code: String,
    /// Lines of inline test modules, counted from 0.
    pub(crate) tests: Vec<Range<usize>>,
    /// True when the whole file is compiled for tests only.
    pub(crate) test_only: bool,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of `fn`, counted from 0.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let tests = test_modules(&code);
        let test_only = path.starts_with("tests/") || path.starts_with("benches/");
        Source { path: path.to_owned(), text: text.to_owned(), code, tests, test_only }
    }

    /// Lines outside inline test modules.
    pub(crate) fn production_lines(&self) -> usize {
        let inside: usize = self.tests.iter().map(ExactSizeIterator::len).sum();
        self.text.lines().count() - inside
    }

    /// Lines of production code with their numbers, counted from 0; none in a test-only file.
    pub(crate) fn production_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.lines().enumerate();
        lines.filter(|(number, _)| !self.test_only && !self.in_tests(*number))
    }

    /// Whether a line belongs to an inline test module.
    pub(crate) fn in_tests(&self, line: usize) -> bool {
        self.tests.iter().any(|module| module.contains(&line))
    }

    /// Names of the modules that this file declares for tests only, to be found in other files.
    pub(crate) fn test_only_modules(&self) -> Vec<String> {
        let gated = gated_items(&self.code).into_iter();
        gated.filter(|item| item.ends == ';').filter_map(|item| item.module).collect()
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        functions(&self.code)
    }
}

/// The name in `mod name`, whatever its visibility.
pub(crate) fn module_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "mod");
    words.next()?;
    let name = words.next()?.trim_end_matches(['{', ';']);
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

/// Blanks comments and the insides of string and character literals; keeps lines as they are.
pub(crate) fn blank(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let end = literal_or_comment(&characters, at).unwrap_or(at + 1);
        if end == at + 1 {
            code.push(characters[at]);
        } else {
            characters[at..end].iter().for_each(|c| code.push(if *c == '\n' { '\n' } else { ' ' }));
        }
        at = end;
    }
    code
}

/// Where the comment or literal that begins here ends; `None` when none begins.
fn literal_or_comment(text: &[char], at: usize) -> Option<usize> {
    let rest = &text[at..];
    match rest {
        ['/', '/', ..] => Some(at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => Some(block_comment_end(text, at)),
        ['"', ..] => Some(string_end(text, at + 1)),
        ['\'', ..] => character_end(text, at),
        ['r', '"' | '#', ..] if !continues_word(text, at) => raw_string_end(text, at + 1),
        ['b' | 'c', 'r', '"' | '#', ..] if !continues_word(text, at) => {
            raw_string_end(text, at + 2)
        }
        _ => None,
    }
}

fn continues_word(text: &[char], at: usize) -> bool {
    at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_')
}

fn block_comment_end(text: &[char], at: usize) -> usize {
    let (mut depth, mut here) = (0, at);
    while here < text.len() {
        match &text[here..] {
            ['/', '*', ..] => (depth, here) = (depth + 1, here + 2),
            ['*', '/', ..] => (depth, here) = (depth - 1, here + 2),
            _ => here += 1,
        }
        if depth == 0 {
            break;
        }
    }
    here
}

fn string_end(text: &[char], inside: usize) -> usize {
    let mut here = inside;
    while here < text.len() {
        match text[here] {
            '\\' => here += 2,
            '"' => return here + 1,
            _ => here += 1,
        }
    }
    text.len()
}

/// `'a'` and `'\n'` are literals, `'a` is a lifetime.
fn character_end(text: &[char], at: usize) -> Option<usize> {
    match &text[at..] {
        ['\'', '\\', _, rest @ ..] => {
            Some(at + 3 + rest.iter().position(|c| *c == '\'').map_or(rest.len(), |end| end + 1))
        }
        ['\'', _, '\'', ..] => Some(at + 3),
        _ => None,
    }
}

fn raw_string_end(text: &[char], at: usize) -> Option<usize> {
    let hashes = text[at..].iter().take_while(|c| **c == '#').count();
    if text.get(at + hashes) != Some(&'"') {
        return None;
    }
    let closes = |end: usize| {
        text[end] == '"'
            && text[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    let inside = at + hashes + 1;
    Some((inside..text.len()).find(|end| closes(*end)).map_or(text.len(), |end| end + 1 + hashes))
}

/// The end of the block whose opening brace is the first at or after `from`.
fn block_end(code: &[char], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code.iter().enumerate().skip(from) {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn line_of(code: &[char], at: usize) -> usize {
    code[..at].iter().filter(|c| **c == '\n').count()
}

/// Something that `#[cfg(test)]`, or `#[cfg(all(test, …))]`, stands before.
struct Gated {
    /// Byte of the attribute.
    at: usize,
    /// The module's name, if it is one.
    module: Option<String>,
    /// What comes first: `{` of a body, or `;`.
    ends: char,
}

fn gated_items(code: &str) -> Vec<Gated> {
    let mut items = Vec::new();
    for (at, _) in code.match_indices("#[cfg(") {
        let Some(end) = code[at..].find(']') else { continue };
        let condition = &code[at..at + end];
        let for_tests = condition.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test");
        if !for_tests || condition.contains("not(test") {
            continue;
        }
        let item = after_attributes(&code[at + end + 1..]);
        let head = item.split(['{', ';']).next().unwrap_or_default();
        let ends = item[head.len()..].chars().next().unwrap_or(';');
        items.push(Gated { at, module: module_name(head), ends });
    }
    items
}

fn after_attributes(mut item: &str) -> &str {
    loop {
        item = item.trim_start();
        match item.strip_prefix("#[").and_then(|rest| rest.split_once(']')) {
            Some((_, rest)) => item = rest,
            None => return item,
        }
    }
}

/// Lines of every inline module for tests, its attributes included.
fn test_modules(code: &str) -> Vec<Range<usize>> {
    let characters: Vec<char> = code.chars().collect();
    let mut modules: Vec<Range<usize>> = Vec::new();
    let inline = |item: &Gated| item.ends == '{' && item.module.is_some();
    for item in gated_items(code).into_iter().filter(inline) {
        let at = code[..item.at].chars().count();
        if let Some(end) = block_end(&characters, at) {
            modules.push(line_of(&characters, at)..line_of(&characters, end) + 1);
        }
    }
    modules
}

fn functions(code: &str) -> Vec<Function> {
    let characters: Vec<char> = code.chars().collect();
    let starts = (0..characters.len()).filter(|at| {
        let word = matches!(&characters[*at..], ['f', 'n', space, ..] if space.is_whitespace());
        word && !continues_word(&characters, *at)
    });
    starts.filter_map(|at| function_at(&characters, at)).collect()
}

fn function_at(code: &[char], at: usize) -> Option<Function> {
    let named = |c: &&char| c.is_alphanumeric() || **c == '_';
    let after = code[at + 2..].iter().skip_while(|c| c.is_whitespace());
    let name: String = after.take_while(named).collect();
    let opens = body_of(code, at)?;
    let (first, last) = (line_of(code, at), line_of(code, block_end(code, opens)?));
    Some(Function { name, line: first, lines: last - first + 1 }).filter(|f| !f.name.is_empty())
}

/// The opening brace of a function's body; `None` for a declaration without one.
fn body_of(code: &[char], at: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (here, c) in code.iter().enumerate().skip(at) {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(here),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        let cases = [
            ("a // unwrap\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("un\"wrap") g"#, "f(          ) g"),
            (r##"r#"a "b" {"# }"##, "             }"),
            ("b\"{\" '{' '\\'' c", "b             c"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("attr\"{\"", "attr   "),
        ];
        for (text, code) in cases {
            assert_eq!(blank(text), code, "{text}");
        }
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let code = "trait T {\n fn a(&self);\n fn b() {\n  1\n }\n}\nfn c(f: fn(u8) -> u8) {}\n";
        let found = functions(code);
        let short: Vec<(&str, usize, usize)> =
            found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(short, [("b", 2, 3), ("c", 6, 1)]);
    }

    #[test]
    fn inline_test_modules_are_no_production() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { \"}\"; }\n}\nfn c() {}\n";
        let source = Source::new("src/a.rs", text);
        assert_eq!(source.tests, std::iter::once(1..5).collect::<Vec<_>>());
        assert_eq!(source.production_lines(), 2);
        let production: Vec<usize> = source.production_code().map(|(line, _)| line).collect();
        assert_eq!(production, [0, 5]);
    }

    #[test]
    fn gates_with_more_conditions_and_attributes_count_and_their_opposite_does_not() {
        let all = "#[cfg(all(test, target_os = \"linux\"))]\n#[allow(x)]\nmod tests {\n}\n";
        assert_eq!(Source::new("src/a.rs", all).production_lines(), 0);
        let not = "#[cfg(not(test))]\nmod real {\n}\n";
        assert_eq!(Source::new("src/a.rs", not).production_lines(), 3);
    }

    #[test]
    fn a_test_module_in_another_file_is_named_and_hides_nothing_here() {
        let source = Source::new("src/a.rs", "#[cfg(test)]\npub(crate) mod tests;\nfn c() {}\n");
        assert_eq!(source.test_only_modules(), ["tests"]);
        assert_eq!(source.production_lines(), 3);
    }
}
