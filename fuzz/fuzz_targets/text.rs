#![no_main]

use cellmill_engine::recipe::Expression;
use cellmill_matrix::{Column, Place, Values};
use cellmill_run::recipe::Recipe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(rule) = Expression::parse(text) {
        // What it prints means the same.
        let printed = rule.to_string();
        let again = Expression::parse(&printed).unwrap_or_else(|e| panic!("'{text}' prints as '{printed}': {e}"));
        let known = ["n".to_string(), "kind".to_string(), "flag".to_string()];
        let columns = [
            Column::Plain(Values::F64(vec![1.0, f64::NAN, -3.5])),
            Column::Categorical { codes: vec![0, -1, 1], categories: Values::Str(vec!["a".into(), "b c".into()]), ordered: false },
            Column::Nullable { values: Values::Bool(vec![true, false, true]), mask: vec![false, false, true] },
        ];
        let find = |name: &str| known.iter().position(|k| k == name).map(|i| &columns[i]);
        let first = rule.evaluate(3, find, &known, &Place::default());
        let second = again.evaluate(3, find, &known, &Place::default());
        assert_eq!(first.ok(), second.ok(), "'{text}' and '{printed}'");
    }
    if let Ok(recipe) = Recipe::parse(text, "recipe.toml") {
        let printed = recipe.to_toml().unwrap();
        assert_eq!(Recipe::parse(&printed, "recipe.toml").unwrap(), recipe);
    }
});
