//! JSON schemas: accepted and refused values, and random answers under hundreds of schemas, which another library validates.

use fastq_core::grammar::{Grammar, GrammarSource};
use serde_json::Value;

use super::schema_generator::generate;
use super::schema_table::CASES;
use super::support::{Model, Random, accepts, draw, reals, tiny};

/// Schemas that are made at random, beside those of the table.
const GENERATED: u64 = 180;

/// Tokens until which an answer must have come to its end.
const MOST: usize = 2_000;

fn compile(model: &Model, schema: &Value) -> Grammar {
    model.compile(&GrammarSource::JsonSchema(schema.clone())).unwrap_or_else(|error| panic!("{error}: {schema}"))
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap_or_else(|error| panic!("{error}: {schema}"))
}

/// Draws answers and validates them. Gives back how many had a number that is right but too large to be read, such as 1e999.
fn check(model: &Model, schema: &Value, seeds: std::ops::Range<u64>) -> usize {
    let mut unread = 0;
    let (grammar, validator) = (compile(model, schema), validator(schema));
    for seed in seeds {
        let (text, complete) = draw(model, &grammar, seed, MOST);
        assert!(complete, "{} {schema}: {text}", model.name);
        let value: Value = match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) if error.to_string().starts_with("number out of range") => {
                unread += 1;
                continue;
            }
            Err(error) => panic!("{} {error}: {schema}: {text}", model.name),
        };
        if let Err(error) = validator.validate(&value) {
            panic!("{} {:?}: {schema}: {text}: {error}", model.name, error.kind());
        }
    }
    unread
}

#[test]
fn values_of_the_table() {
    for model in tiny().iter().chain(reals().first()) {
        for (schema, right, wrong) in CASES {
            let schema: Value = serde_json::from_str(schema).unwrap_or_else(|error| panic!("{error}: {schema}"));
            let (grammar, validator) = (compile(model, &schema), validator(&schema));
            for text in *right {
                assert!(
                    validator.is_valid(&serde_json::from_str(text).unwrap()),
                    "the table is wrong: {schema}: {text}"
                );
                assert!(accepts(model, &grammar, text), "{} {schema}: {text}", model.name);
            }
            for text in *wrong {
                assert!(!accepts(model, &grammar, text), "{} {schema}: {text}", model.name);
            }
        }
    }
}

#[test]
fn random_answers_under_the_table_are_valid() {
    for model in tiny().iter().chain(reals()) {
        let unread = CASES.iter().map(|case| check(model, &serde_json::from_str(case.0).unwrap(), 0..4));
        assert!(unread.sum::<usize>() < CASES.len() / 10);
    }
}

#[test]
fn random_answers_under_random_schemas_are_valid() {
    let models: Vec<&Model> = tiny().iter().chain(reals()).collect();
    let mut unread = 0;
    for seed in 0..GENERATED {
        let schema = generate(&mut Random(seed));
        // Each under one vocabulary, and every vocabulary under many.
        unread += check(models[seed as usize % models.len()], &schema, 0..3);
    }
    assert!(unread < GENERATED as usize * 3 / 10);
}

#[test]
fn answers_depend_on_the_mask_and_the_seed_only() {
    let schema: Value = serde_json::from_str(CASES[CASES.len() - 2].0).unwrap();
    for model in tiny() {
        let (one, two) = (compile(model, &schema), compile(model, &schema));
        let texts: Vec<String> = (0..6).map(|seed| draw(model, &one, seed, MOST).0).collect();
        assert_eq!(texts, (0..6).map(|seed| draw(model, &two, seed, MOST).0).collect::<Vec<_>>());
        assert!(texts.iter().any(|text| *text != texts[0]));
    }
}
