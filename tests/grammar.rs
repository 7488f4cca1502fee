//! Grammars: which texts match, that random answers under a mask are valid, and that hostile sources end in errors.

mod grammar {
    mod gbnf;
    mod hostile;
    mod matcher;
    mod measure;
    mod regex;
    mod schema;
    mod schema_errors;
    mod schema_generator;
    mod schema_table;
    mod support;
}
mod tokenizer_support;
