//! Single lives worth telling.
