//! Chat templates: the Jinja template of the file, run by minijinja with limits.
